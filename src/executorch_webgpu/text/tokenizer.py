"""Text to token ids and back, from a GGUF file's own vocabulary or a ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import tokenizers

from ..errors import InvalidInputError
from ..format.gguf import is_gguf, open_gguf_header
from ..format.gguf_parts import gguf_parts
from .detokenizer import Detokenizer, TextStream
from .generation import (
    GENERATION,
    MODEL_CONFIG,
    GenerationSettings,
    Reader,
    SamplingDefaults,
    folder_generation,
    generation_file,
    read_generation,
    read_json,
)
from .gguf_vocabulary import GgufVocabulary
from .hf_tokenizer import Affixes, affixes, mark_special_tokens, named_tokens, spelled_tokens

# Files of a tokenizer, by Hugging Face's names.
TOKENIZER, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SPECIAL_TOKENS = "special_tokens_map.json"
# Those that say something about the model, too, and may stand beside its weights.
MODEL_FILES = (GENERATION, MODEL_CONFIG)


@dataclass(frozen=True)
class TokenizerSettings:
    """What a file says beside its vocabulary.

    ``add_bos``: ``bos_id`` begins every text. ``eos_ids``: tokens that end one. ``special_tokens``: texts of the named
    tokens by what chat templates call them ("bos_token", "eos_token", "pad_token", ...), without those that there are
    none of. ``sampling``: how the model's authors want tokens to be drawn.
    """

    bos_id: int | None = None
    eos_ids: frozenset[int] = frozenset()
    add_bos: bool = False
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    chat_template: str | None = None
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)

    @property
    def bos_token(self) -> str:
        """Text of the token that begins a text; empty if there is none."""
        return self.special_tokens.get("bos_token", "")

    @property
    def eos_token(self) -> str:
        """Text of the token that ends a text; empty if there is none."""
        return self.special_tokens.get("eos_token", "")


class Tokenizer:
    """A vocabulary with its special tokens; make one with ``Tokenizer.from_file``. Threads may share it.

    ``spelled``: texts of ids that ``backend`` has under another text, see ``Detokenizer``.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, settings: TokenizerSettings, spelled: Mapping[int, str] | None = None
    ) -> None:
        self.backend = backend
        self.settings = settings
        self.spelled = dict(spelled or {})
        self._detokenizer = Detokenizer(backend, self.spelled)
        self._affixes: Affixes = affixes(backend)
        self._lock = Lock()  # whether special tokens are parsed is a state of the backend

    @classmethod
    def from_file(cls, path: str | Path, *, model: str | Path | None = None) -> Tokenizer:
        """Read a ``.gguf`` file, a ``tokenizer.json`` or a folder that holds one (told by content, not name).

        End tokens and sampling defaults are read of ``generation_config.json`` and ``config.json`` beside it, or in the
        folder ``model`` if that has any, for a tokenizer that lies elsewhere.
        Raises InvalidInputError for an unreadable file, and for a vocabulary type or pre-tokenizer that is
        not known here; OSError when the file cannot be opened.
        """
        path = Path(path)
        if path.is_dir():
            path = path / TOKENIZER
        if is_gguf(path):
            return _from_gguf(path, folder_generation(Path(model)) if model is not None else GenerationSettings())
        elsewhere = model is not None and any((Path(model) / name).exists() for name in MODEL_FILES)
        beside = Path(model) if model is not None and elsewhere else path.parent

        def read(name: str) -> bytes | None:
            file = path if name == TOKENIZER else (beside if name in MODEL_FILES else path.parent) / name
            return file.read_bytes() if file.exists() else None

        return _from_files(read, str(path))

    @classmethod
    def from_files(cls, files: Mapping[str, bytes | memoryview]) -> Tokenizer:
        """The tokenizer that ``files`` made. Raises InvalidInputError when it is not readable."""
        return _from_files(lambda name: bytes(files[name]) if name in files else None, "the tokenizer in the program")

    def files(self) -> dict[str, bytes]:
        """All of it as files by name, as Hugging Face names and writes them: what a program carries along."""
        its = self.settings
        config: dict[str, Any] = dict(its.special_tokens)
        if its.chat_template:
            config["chat_template"] = its.chat_template
        if self.spelled:
            config["spelled_tokens"] = {str(index): text for index, text in self.spelled.items()}
        return {
            TOKENIZER: self.backend.to_str().encode(),
            CONFIG: json.dumps(config).encode(),
            GENERATION: generation_file(GenerationSettings(its.eos_ids, its.bos_id, its.sampling)),
        }

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a text or a turn."""
        return self.settings.eos_ids

    def encode(self, text: str, *, parse_special: bool = False, add_special: bool = True) -> list[int]:
        """Token ids of a text, with what the tokenizer puts before and after every text (BOS once, EOS, ...) unless
        ``add_special`` is off, as for a rendered chat template.

        With ``parse_special`` the text of a special token, such as ``<|im_start|>``, becomes that token:
        right for a rendered chat template. Without, it is text like any other: right for text from outside.
        Raises InvalidInputError for text with lone surrogates.
        """
        ids = self._encode(text, parse_special)
        if not add_special:
            return ids
        before, after = self._affixes
        if parse_special and ids[: len(before)] == list(before):
            before = ()
        return [*before, *ids, *after]

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a plain text that a model is to continue: as ``encode``, less what the tokenizer puts after
        every text. Some append an end token, and a text that has ended does not go on."""
        return [*self._affixes[0], *self._encode(text, parse_special=False)]

    def decode(self, ids: Sequence[int], *, keep_special: bool = False, keep: Collection[str] = ()) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD. Special tokens are left out, but for those whose
        text is in ``keep``."""
        return self._detokenizer.decode(ids, keep_special=keep_special, keep=keep)

    def token_bytes(self, index: int) -> bytes | None:
        """The bytes that a token adds to a text that others have begun; of a special token those of its name; None for
        an id that is no token."""
        return self._detokenizer.raw(index)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens: they have names, and no text."""
        return self._detokenizer.special

    def stream(self, after: Sequence[int] = (), *, keep: Collection[str] = ()) -> TextStream:
        """A decoder that takes tokens one at a time, continuing the text of ``after``. Special tokens whose text is in
        ``keep`` are decoded, too."""
        if not keep:
            return TextStream(self.decode, after)
        kept = frozenset(keep)
        return TextStream(lambda ids: self.decode(ids, keep=kept), after)

    @property
    def named_special_ids(self) -> dict[str, int]:
        """Ids of the special tokens by their text."""
        added = self.backend.get_added_tokens_decoder()
        return {token.content: index for index, token in added.items() if token.special}

    def _encode(self, text: str, parse_special: bool) -> list[int]:
        with self._lock:
            self.backend.encode_special_tokens = not parse_special
            try:
                return plain_ids(self.backend, text)
            except TypeError as error:  # the library's word for a lone surrogate, as argv has for stray bytes
                raise InvalidInputError("the text is not valid Unicode; give it in UTF-8") from error


def plain_ids(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    """Token ids of a text, without what goes around every text. Other threads run meanwhile, as in ``encode`` none do.

    Raises TypeError for lone surrogates.
    """
    ids: list[int] = backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return ids


def _from_gguf(path: Path, generation: GenerationSettings) -> Tokenizer:
    vocabulary = GgufVocabulary(open_gguf_header(gguf_parts(path)[0]).metadata)
    backend = vocabulary.backend()
    bos = vocabulary.token_id("bos")
    settings = TokenizerSettings(
        bos_id=bos,
        eos_ids=vocabulary.end_ids | generation.eos_ids,
        add_bos=bos is not None and affixes(backend)[0] == (bos,),
        special_tokens=vocabulary.named_tokens,
        chat_template=vocabulary.chat_template,
        sampling=generation.sampling,
    )
    return Tokenizer(backend, settings, vocabulary.spelled)


def _from_files(read: Reader, where: str) -> Tokenizer:
    """A tokenizer of Hugging Face's files; ``read`` gives one by name, or None when there is none."""
    try:
        backend = tokenizers.Tokenizer.from_str((read(TOKENIZER) or b"").decode("utf-8-sig"))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise InvalidInputError(
            f"{where} is neither a GGUF file nor a readable {TOKENIZER} ({error}); give the model's"
        ) from error
    # Some files have these on, for training; a prompt is never cut or filled up here.
    backend.no_truncation()
    backend.no_padding()
    config = read_json(read, CONFIG)
    named = named_tokens(config, read_json(read, SPECIAL_TOKENS))
    ends = mark_special_tokens(backend, config, named)
    generation = read_generation(read)
    before = affixes(backend)[0]
    # A token that begins every text is BOS where no file names one.
    bos_id = backend.token_to_id(named["bos_token"]) if "bos_token" in named else next(iter(before), generation.bos_id)
    eos_id = backend.token_to_id(named["eos_token"]) if "eos_token" in named else None
    settings = TokenizerSettings(
        bos_id=bos_id,
        eos_ids=ends | generation.eos_ids | ({eos_id} if eos_id is not None else frozenset()),
        add_bos=bos_id is not None and before[:1] == (bos_id,),
        special_tokens=named,
        chat_template=_chat_template(read(TEMPLATE), config.get("chat_template")),
        sampling=generation.sampling,
    )
    return Tokenizer(backend, settings, spelled_tokens(config))


def _chat_template(file: bytes | None, in_config: Any) -> str | None:
    """The template beside the tokenizer, else the config's: one string, or a list of named ones."""
    if file is not None:
        try:
            return file.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{TEMPLATE} is not UTF-8 ({error}); repair or remove it") from error
    if isinstance(in_config, list):
        entries = [entry for entry in in_config if isinstance(entry, dict)]
        in_config = {entry.get("name"): entry.get("template") for entry in entries}.get("default")
    if isinstance(in_config, dict):
        in_config = in_config.get("default")
    return in_config if isinstance(in_config, str) else None
