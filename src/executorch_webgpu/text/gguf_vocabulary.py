"""A GGUF file's vocabulary as a ``tokenizers`` pipeline.

``tokenizer.ggml.model`` names the family: "gpt2" is byte-level BPE, with ranked merges and a pre-tokenizer by
name; "llama" is SentencePiece BPE, where every piece has a score. Both are checked against llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from ..errors import InvalidInputError


class TokenType(IntEnum):
    """``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class PreTokenizer:
    """How a byte-level BPE cuts text before merging: each pattern isolates its matches within the last one's
    pieces. ``whole_words``: a piece that is a token as it stands is not merged. ``add_bos``: unless said."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    "gpt-2": PreTokenizer((GPT2,)),
    "smollm": PreTokenizer((r"\p{N}", GPT2)),
    "llama-bpe": PreTokenizer((WORDS % "{1,3}",), whole_words=True, add_bos=True),
    "qwen2": PreTokenizer((WORDS % "",)),
}
SPACE = "\u2581"  # SentencePiece writes a space as a lower one eighth block.

T = TypeVar("T")


class GgufVocabulary:
    """The ``tokenizer.*`` keys, checked; ``backend()`` makes the tokenizer.

    Raises InvalidInputError for a missing or ill-typed key, an unknown model or an unknown pre-tokenizer.
    """

    def __init__(self, metadata: dict[str, Any]) -> None:
        self._metadata = metadata
        self.model = self._get("ggml.model", str)
        self.tokens = self._strings("ggml.tokens")
        types = self._get("ggml.token_type", list, [TokenType.NORMAL] * len(self.tokens))
        if len(types) != len(self.tokens):
            raise InvalidInputError("the GGUF file's tokens and token types differ in number; download it again")
        self.types = types
        if self.model not in ("gpt2", "llama"):
            raise InvalidInputError(
                f'the GGUF file\'s vocabulary type is "{self.model}"; known are "gpt2" and "llama": give the '
                "model's tokenizer.json instead"
            )
        self.pre_tokenizer = self._pre_tokenizer() if self.model == "gpt2" else None

    @property
    def add_bos(self) -> bool:
        """Whether a text starts with BOS: the file's word, or its family's habit."""
        default = self.pre_tokenizer.add_bos if self.pre_tokenizer else True
        return self._get("ggml.add_bos_token", bool, default)

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template, if the file has one."""
        return self._get("chat_template", str, "") or None

    def token_id(self, name: str) -> int | None:
        """Id of a named token: "bos", "eos", "eot", "eom", "unknown"."""
        index = self._get(f"ggml.{name}_token_id", int, -1)
        # Writers state an absent token as the largest u32.
        return index if 0 <= index < len(self.tokens) else None

    def backend(self) -> tokenizers.Tokenizer:
        """The whole pipeline: normalizer, pre-tokenizer, model, decoder and special tokens."""
        try:
            backend = self._byte_level() if self.pre_tokenizer else self._sentencepiece()
        except InvalidInputError:
            raise
        except Exception as error:  # the tokenizers library raises bare Exception
            raise InvalidInputError(f"the GGUF file's vocabulary is inconsistent: {error}") from error
        backend.add_special_tokens(self._added(TokenType.CONTROL))
        backend.add_tokens(self._added(TokenType.USER_DEFINED))
        return backend

    def _byte_level(self) -> tokenizers.Tokenizer:
        assert self.pre_tokenizer is not None
        merges = [merge.partition(" ") for merge in self._strings("ggml.merges")]
        model = models.BPE(
            vocab={token: index for index, token in enumerate(self.tokens)},
            merges=[(left, right) for left, _, right in merges],
            ignore_merges=self.pre_tokenizer.whole_words,
        )
        backend = tokenizers.Tokenizer(model)
        splits = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in self.pre_tokenizer.patterns]
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
        backend.decoder = decoders.ByteLevel()
        return backend

    def _sentencepiece(self) -> tokenizers.Tokenizer:
        vocab = {token: index for index, token in enumerate(self.tokens)}
        unknown = self.token_id("unknown")
        model = models.BPE(
            vocab=vocab,
            merges=self._merges_by_score(vocab),
            unk_token=None if unknown is None else self.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
        backend = tokenizers.Tokenizer(model)
        prefix = self._get("ggml.add_space_prefix", bool, True)
        prepend = [normalizers.Prepend(SPACE)] if prefix else []
        backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", SPACE)])
        strip = [decoders.Strip(" ", 1, 0)] if prefix else []
        backend.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        return backend

    def _merges_by_score(self, vocab: dict[str, int]) -> list[tuple[str, str]]:
        """SentencePiece joins the neighbours whose piece has the highest score. As ranked merges: every way
        to cut a piece into two pieces, best score first."""
        scores = self._get("ggml.scores", list)
        if len(scores) != len(self.tokens):
            raise InvalidInputError("the GGUF file's tokens and scores differ in number; download it again")
        ranked = []
        for index, token in enumerate(self.tokens):
            if self.types[index] not in (TokenType.NORMAL, TokenType.USER_DEFINED):
                continue
            for cut in range(1, len(token)):
                left, right = token[:cut], token[cut:]
                if left in vocab and right in vocab:
                    ranked.append((-scores[index], index, vocab[left], vocab[right]))
        ranked.sort()
        return [(self.tokens[left], self.tokens[right]) for _, _, left, right in ranked]

    def _added(self, kind: TokenType) -> list[AddedToken]:
        """Tokens matched in the text before anything else. Pieces with a space in SentencePiece's spelling
        stay ordinary: the raw text has no such character."""
        special = kind == TokenType.CONTROL
        return [
            AddedToken(token, special=special, normalized=False)
            for token, its in zip(self.tokens, self.types, strict=True)
            if its == kind and token and (special or self.model == "gpt2" or SPACE not in token)
        ]

    def _pre_tokenizer(self) -> PreTokenizer:
        name = self._get("ggml.pre", str, "default")
        if name not in PRE_TOKENIZERS:
            known = ", ".join(sorted(PRE_TOKENIZERS))
            raise InvalidInputError(
                f"the GGUF file's pre-tokenizer is \"{name}\"; known are {known}: give the model's "
                "tokenizer.json instead"
            )
        return PRE_TOKENIZERS[name]

    def _strings(self, key: str) -> list[str]:
        values = self._get(key, list)
        if not all(isinstance(value, str) for value in values):
            raise InvalidInputError(f"the GGUF file's tokenizer.{key} is not a list of strings")
        return values

    def _get(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self._metadata.get(f"tokenizer.{key}", default)
        if value is None:
            raise InvalidInputError(f"the GGUF file has no tokenizer.{key}; give the model's tokenizer.json instead")
        if not isinstance(value, kind):
            raise InvalidInputError(f"the GGUF file's tokenizer.{key} is not of type {kind.__name__}")
        return value
