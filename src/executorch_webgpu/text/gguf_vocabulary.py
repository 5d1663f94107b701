"""A GGUF file's vocabulary as a ``tokenizers`` pipeline.

``tokenizer.ggml.model`` names the family: "gpt2" is byte-level BPE, with ranked merges and a pre-tokenizer by
name; "llama" is SentencePiece BPE, where every piece has a score. Both are checked against llama.cpp. "bert" is
WordPiece.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any, TypeVar

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from ..errors import InvalidInputError
from .end_tokens import END_TEXTS, FILL_END_TEXTS, ends_by_text, ordinary_ends
from .gguf_wordpiece import around, wordpiece_backend
from .pre_tokenizers import pre_tokenizer


class TokenType(IntEnum):
    """``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


SPECIAL = (TokenType.CONTROL, TokenType.UNKNOWN)
SPACE = "\u2581"  # SentencePiece writes a space as a lower one eighth block.
# What chat templates call the tokens that a file names by id.
NAMED_TOKENS = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "sep_token": "seperator",  # so spelled in the format
    "cls_token": "cls",
    "pad_token": "padding",
    "mask_token": "mask",
}
# Ids of the tokens that a SentencePiece vocabulary has without saying so.
SENTENCEPIECE_IDS = {"unknown": 0, "bos": 1, "eos": 2}
INSTEAD = "name the model's own tokenizer.json with --tokenizer (tokenizer= in Python)"

T = TypeVar("T")


class GgufVocabulary:
    """The ``tokenizer.*`` keys, checked; ``backend()`` makes the tokenizer.

    ``tokens``: the text of every id, stray bytes as ``surrogateescape`` writes them. ``spelled``: the texts of those
    ids that the tokenizer has under a text of ours, because theirs is another id's as well (text is encoded to the
    last id, as in llama.cpp) or is not UTF-8. ``types``: as in the file, less its mistakes about end tokens.
    Raises InvalidInputError for a missing or ill-typed key, an unknown model or an unknown pre-tokenizer.
    """

    def __init__(self, metadata: dict[str, Any]) -> None:
        self._metadata = metadata
        self.model = self._get("ggml.model", str)
        if self.model not in ("gpt2", "llama", "bert"):
            raise InvalidInputError(
                f'the GGUF file\'s vocabulary type is "{self.model}"; known are "gpt2", "llama" and "bert": {INSTEAD}'
            )
        self.pre_tokenizer = pre_tokenizer(self._get("ggml.pre", str, "default")) if self.model == "gpt2" else None
        self.tokens = self._list("ggml.tokens", str)
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        self.types = self._types()
        self._texts, self.spelled = self._own_texts()

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template, if the file has one."""
        return self._get("chat_template", str, "") or None

    @property
    def named_tokens(self) -> dict[str, str]:
        """Texts of the tokens that the file names, as chat templates call them."""
        ids = {name: self.token_id(key) for name, key in NAMED_TOKENS.items()}
        return {name: self.tokens[index] for name, index in ids.items() if index is not None}

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids of the tokens that end a text."""
        return ends_by_text(self._ids, self._stated_ends())

    def token_id(self, name: str) -> int | None:
        """Id of a named token: "bos", "eos", "eot", "eom", "unknown", ...; the family's default where none is named."""
        index = self._get(f"ggml.{name}_token_id", int, -1)
        if not 0 <= index < len(self.tokens):  # writers state an absent token as the largest u32
            index = SENTENCEPIECE_IDS.get(name, -1) if self.model == "llama" else -1
        return index if 0 <= index < len(self.tokens) else None

    def backend(self) -> tokenizers.Tokenizer:
        """The whole pipeline: normalizer, pre-tokenizer, model, post-processor, decoder and special tokens."""
        try:
            if self.model == "bert":
                backend = self._wordpiece()
            else:
                backend = self._byte_level() if self.pre_tokenizer else self._sentencepiece()
        except InvalidInputError:
            raise
        except Exception as error:  # the tokenizers library raises bare Exception
            raise InvalidInputError(f"the GGUF file's vocabulary is inconsistent ({error}): {INSTEAD}") from error
        backend.add_special_tokens(self._added(*SPECIAL))
        backend.add_tokens(self._added(TokenType.USER_DEFINED))
        backend.post_processor = self._around_texts() if self.model == "bert" else self._post_processor()
        return backend

    def _byte_level(self) -> tokenizers.Tokenizer:
        assert self.pre_tokenizer is not None
        merges = [merge.partition(" ") for merge in self._list("ggml.merges", str) if _is_utf8(merge)]
        model = models.BPE(
            vocab={token: index for index, token in enumerate(self._texts)},
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
        vocab = {token: index for index, token in enumerate(self._texts)}
        unknown = self.token_id("unknown")
        model = models.BPE(
            vocab=vocab,
            merges=self._merges_by_score(vocab),
            unk_token=None if unknown is None else self._texts[unknown],
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

    def _wordpiece(self) -> tokenizers.Tokenizer:
        unknown = self.token_id("unknown")
        if unknown is None:
            raise InvalidInputError(f"the GGUF file names no unknown token: {INSTEAD}")
        control = {index for index, kind in enumerate(self.types) if kind in SPECIAL}
        return wordpiece_backend(self._texts, control | {unknown}, self._texts[unknown])

    def _around_texts(self) -> processors.TemplateProcessing:
        """[CLS] and [SEP], which files name in two ways."""
        first = next((i for i in map(self.token_id, ("cls", "bos")) if i is not None), None)
        last = next((i for i in map(self.token_id, ("seperator", "eos")) if i is not None), None)
        if first is None or last is None:
            raise InvalidInputError(f"the GGUF file does not name the tokens around every text: {INSTEAD}")
        return around((self._texts[first], first), (self._texts[last], last))

    def _merges_by_score(self, vocab: dict[str, int]) -> list[tuple[str, str]]:
        """SentencePiece joins the neighbours whose piece has the highest score. As ranked merges: every way
        to cut a piece into two pieces, best score first."""
        scores = self._list("ggml.scores", float, count=len(self.tokens))
        if any(math.isnan(score) for score in scores):
            raise InvalidInputError(f"the GGUF file has scores of tokens that are not a number: {INSTEAD}")
        ranked = []
        for index, token in enumerate(self._texts):
            if self.types[index] not in (TokenType.NORMAL, TokenType.USER_DEFINED) or index in self.spelled:
                continue
            for cut in range(1, len(token)):
                left, right = token[:cut], token[cut:]
                if left in vocab and right in vocab:
                    ranked.append((-scores[index], index, vocab[left], vocab[right]))
        ranked.sort()
        return [(self._texts[left], self._texts[right]) for _, _, left, right in ranked]

    def _added(self, *kinds: TokenType) -> list[AddedToken]:
        """Tokens matched in the text before anything else. Pieces with a space in SentencePiece's spelling
        stay ordinary: the raw text has no such character."""
        special = TokenType.CONTROL in kinds
        return [
            AddedToken(token, special=special, normalized=False)
            for index, token in enumerate(self._texts)
            if self.types[index] in kinds
            and token
            and index not in self.spelled
            and (special or self.model == "gpt2" or SPACE not in token)
        ]

    def _post_processor(self) -> processors.TemplateProcessing | None:
        """What begins and ends every text: by the file's word, or its family's habit."""
        kind = self.pre_tokenizer
        add_bos = self._get("ggml.add_bos_token", bool, kind.add_bos if kind else True)
        add_eos = self._get("ggml.add_eos_token", bool, False)
        names = (["bos"] if add_bos else [], ["eos"] if add_eos else [])
        before, after = ([n for n in some if self.token_id(n) is not None] for some in names)
        if not before and not after:
            return None
        ids = {name: index for name in (*before, *after) if (index := self.token_id(name)) is not None}
        return processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, "$B", *after],
            special_tokens=[{"id": n, "ids": [i], "tokens": [self._texts[i]]} for n, i in ids.items()],
        )

    def _types(self) -> list[int]:
        """Every token's type. The ends of a text are control tokens whatever the file says (llama.cpp does the same):
        converters often write them as ordinary text, which then never ends."""
        default = [TokenType.NORMAL] * len(self.tokens)
        types = self._list("ggml.token_type", int, default, count=len(self.tokens))
        stated = self._stated_ends()
        ordinary = ordinary_ends(self._ids, stated)
        for text in END_TEXTS & self._ids.keys():
            index = self._ids[text]
            if text not in ordinary:
                types[index] = TokenType.CONTROL
            else:
                types[index] = TokenType.NORMAL if text == "</s>" else TokenType.USER_DEFINED
        for key, texts in FILL_END_TEXTS.items():
            for text in self._ids.keys() & (texts if key not in stated else ()):
                # One that the file has users type stays theirs.
                if types[self._ids[text]] != TokenType.USER_DEFINED:
                    types[self._ids[text]] = TokenType.CONTROL
        return types

    def _stated_ends(self) -> dict[str, int]:
        keys = ("eos", "eot", "eom", *FILL_END_TEXTS)
        return {key: index for key in keys if (index := self.token_id(key)) is not None}

    def _own_texts(self) -> tuple[list[str], dict[int, str]]:
        """A text for every id that is no other id's, and the real one of those whose text that is not."""
        texts, spelled = list(self.tokens), {}
        for index, token in enumerate(self.tokens):
            if self._ids[token] != index or not _is_utf8(token):
                spelled[index] = token
                texts[index] = f" id {index}"  # no text has this: a space is spelled in another way
                while texts[index] in self._ids:
                    texts[index] += " "
        return texts, spelled

    def _list(self, key: str, kind: type[T], default: list[Any] | None = None, *, count: int = 0) -> list[T]:
        """The list of that key, ``count`` values of it if that is given; float takes integers, too."""
        values = self._get(key, list, default)
        kinds = (int, float) if kind is float else (kind,)
        if not all(isinstance(value, kinds) and not isinstance(value, bool) for value in values):
            raise InvalidInputError(f"the GGUF file's tokenizer.{key} is not a list of type {kind.__name__}: {INSTEAD}")
        if len(values) < count:
            raise InvalidInputError(
                f"the GGUF file has {count} tokens and {len(values)} values of tokenizer.{key}: {INSTEAD}"
            )
        return values[:count] if count else list(values)

    def _get(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self._metadata.get(f"tokenizer.{key}", default)
        if value is None:
            raise InvalidInputError(f"the GGUF file has no tokenizer.{key}: {INSTEAD}")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InvalidInputError(f"the GGUF file's tokenizer.{key} is not of type {kind.__name__}: {INSTEAD}")
        if isinstance(value, str) and not _is_utf8(value):
            raise InvalidInputError(f"the GGUF file's tokenizer.{key} is not UTF-8: {INSTEAD}")
        return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
