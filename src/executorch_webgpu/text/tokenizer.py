"""Text to token ids and back, from a GGUF file's own vocabulary or a ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from ..errors import InvalidInputError
from ..format.gguf import is_gguf, open_gguf_header
from ..format.gguf_parts import gguf_parts
from .gguf_vocabulary import GgufVocabulary

# Tokens that end a turn. Files name one of them as "eos" and leave the others to be known by their text.
END_OF_TURN = frozenset(
    (
        *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>"),
        *("<|return|>", "<|end_of_turn|>", "<end_of_turn>", "<EOT>", "</s>"),
    )
)
# Files of a tokenizer, by Hugging Face's names.
TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"
# A stream decodes at least this many tokens again before it forgets them.
STREAM_CONTEXT = 8
# A character has at most 4 bytes, so this many tokens without a whole one are not the start of one.
MAX_UNFINISHED = 32


@dataclass(frozen=True)
class TokenizerSettings:
    """What a file says beside its vocabulary. ``add_bos``: put ``bos_id`` before every text."""

    bos_id: int | None = None
    eos_ids: frozenset[int] = frozenset()
    add_bos: bool = False
    bos_token: str = ""
    eos_token: str = ""
    chat_template: str | None = None


class Tokenizer:
    """A vocabulary with its special tokens; make one with ``Tokenizer.from_file``."""

    def __init__(self, backend: tokenizers.Tokenizer, settings: TokenizerSettings) -> None:
        self.backend = backend
        self.settings = settings

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a ``.gguf`` file, a ``tokenizer.json`` or a folder that holds one (told by content, not name).

        Raises InvalidInputError for an unreadable file, and for a vocabulary type or pre-tokenizer that is
        not known here; OSError when the file cannot be opened.
        """
        path = Path(path)
        if path.is_dir():
            path = path / TOKENIZER
        if is_gguf(path):
            return _from_gguf(path)

        def read(name: str) -> bytes | None:
            file = path if name == TOKENIZER else path.with_name(name)
            return file.read_bytes() if file.exists() else None

        return _from_files(read, str(path))

    @classmethod
    def from_files(cls, files: Mapping[str, bytes | memoryview]) -> Tokenizer:
        """The tokenizer that ``files`` made. Raises InvalidInputError when it is not readable."""
        return _from_files(lambda name: bytes(files[name]) if name in files else None, "the tokenizer in the program")

    def files(self) -> dict[str, bytes]:
        """All of it as files by name, as Hugging Face names and writes them: what a program carries along."""
        its = self.settings
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        if its.add_bos and its.bos_id is not None and backend.post_processor is None:
            bos = backend.id_to_token(its.bos_id)
            backend.post_processor = processors.TemplateProcessing(
                single=[bos, "$A"], pair=[bos, "$A", "$B"], special_tokens=[(bos, its.bos_id)]
            )
        config = {"bos_token": its.bos_token, "eos_token": its.eos_token, "chat_template": its.chat_template}
        generation = {"bos_token_id": its.bos_id, "eos_token_id": sorted(its.eos_ids)}
        return {
            TOKENIZER: backend.to_str().encode(),
            CONFIG: json.dumps({key: value for key, value in config.items() if value}).encode(),
            GENERATION: json.dumps(generation).encode(),
        }

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a text or a turn."""
        return self.settings.eos_ids

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Token ids of a text, with BOS first (and once) when the file asks for it.

        With ``parse_special`` the text of a special token, such as ``<|im_start|>``, becomes that token:
        right for a rendered chat template. Without, it is text like any other: right for text from outside.
        Raises InvalidInputError for text with lone surrogates.
        """
        self.backend.encode_special_tokens = not parse_special
        try:
            ids = self.backend.encode(text, add_special_tokens=False).ids
        except TypeError as error:  # the library's word for a lone surrogate, as argv has for stray bytes
            raise InvalidInputError("the text is not valid Unicode; give it in UTF-8") from error
        bos = self.settings.bos_id
        if self.settings.add_bos and bos is not None and ids[:1] != [bos]:
            return [bos, *ids]
        return ids

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD, special tokens are left out."""
        return self.backend.decode(list(ids), skip_special_tokens=not keep_special)

    def stream(self, after: Sequence[int] = ()) -> TextStream:
        """A decoder that takes tokens one at a time, continuing the text of ``after``."""
        return TextStream(self, after)


class TextStream:
    """Turns tokens into text as they come, in whole characters: the bytes of one may span several tokens.

    Decoding the last few tokens again each time keeps right what depends on a token's neighbours: characters,
    and the space before a word.
    """

    def __init__(self, tokenizer: Tokenizer, after: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(after)
        self._boundary = 0  # so many of the ids end with a whole character
        self._shown = 0  # so many characters of their text were given away
        self._take(finished=False)

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        self._ids.append(token)
        return self._take(finished=len(self._ids) - self._boundary > MAX_UNFINISHED)

    def finish(self) -> str:
        """What is left of an unfinished character, as U+FFFD; empty in the usual case."""
        return self._take(finished=True)

    def _take(self, *, finished: bool) -> str:
        """The text not given away yet, less the U+FFFD at its end unless ``finished``: more bytes may make
        them a character."""
        text = self._tokenizer.decode(self._ids)
        whole = text if finished else text.rstrip("\ufffd")
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        if whole == text:
            self._forget()
        return new

    def _forget(self) -> None:
        """At the end of a character, drop what stands before the last such place."""
        recent = self._ids[self._boundary :]
        # Special tokens have no text, and a word after nothing would lose its space: keep what has some.
        if self._boundary > STREAM_CONTEXT and (text := self._tokenizer.decode(recent)):
            self._ids, self._shown = recent, len(text)
        self._boundary = len(self._ids)


def _from_gguf(path: Path) -> Tokenizer:
    vocabulary = GgufVocabulary(open_gguf_header(gguf_parts(path)[0]).metadata)
    backend = vocabulary.backend()
    bos, eos = vocabulary.token_id("bos"), vocabulary.token_id("eos")
    ends = (vocabulary.token_id(name) for name in ("eos", "eot", "eom"))
    settings = TokenizerSettings(
        bos_id=bos,
        eos_ids=frozenset(end for end in ends if end is not None) | _end_of_turn(backend),
        add_bos=vocabulary.add_bos,
        bos_token="" if bos is None else vocabulary.tokens[bos],
        eos_token="" if eos is None else vocabulary.tokens[eos],
        chat_template=vocabulary.chat_template,
    )
    return Tokenizer(backend, settings)


def _from_files(read: Callable[[str], bytes | None], where: str) -> Tokenizer:
    """A tokenizer of Hugging Face's files; ``read`` gives one by name, or None when there is none."""
    try:
        backend = tokenizers.Tokenizer.from_str((read(TOKENIZER) or b"").decode())
    except Exception as error:  # the tokenizers library raises bare Exception
        raise InvalidInputError(
            f"{where} is neither a GGUF file nor a readable {TOKENIZER} ({error}); give the model's"
        ) from error
    config, generation = _read_json(read, CONFIG), _read_json(read, GENERATION)
    bos_token, eos_token = _token_text(config.get("bos_token")), _token_text(config.get("eos_token"))
    # Whether a text starts with BOS is said by the post-processor alone: ask it.
    before = backend.encode("", add_special_tokens=True).ids[:1]
    bos_id = backend.token_to_id(bos_token) if bos_token else next(iter(before), None)
    eos_id = backend.token_to_id(eos_token) if eos_token else None
    stated = generation.get("eos_token_id", [])
    ends = (eos_id, *(stated if isinstance(stated, list) else [stated]))
    settings = TokenizerSettings(
        bos_id=bos_id,
        eos_ids=_end_of_turn(backend) | frozenset(end for end in ends if isinstance(end, int)),
        add_bos=bos_id is not None and before == [bos_id],
        bos_token=bos_token,
        eos_token=eos_token,
        chat_template=_chat_template(read(TEMPLATE), config.get("chat_template")),
    )
    return Tokenizer(backend, settings)


def _end_of_turn(backend: tokenizers.Tokenizer) -> frozenset[int]:
    added = backend.get_added_tokens_decoder()
    return frozenset(i for i, token in added.items() if token.special and token.content in END_OF_TURN)


def _read_json(read: Callable[[str], bytes | None], name: str) -> dict[str, Any]:
    content = read(name)
    if content is None:
        return {}
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise InvalidInputError(f"{name} is not readable JSON ({error}); repair or remove it") from error
    if not isinstance(parsed, dict):
        raise InvalidInputError(f"{name} does not hold a JSON object; repair or remove it")
    return parsed


def _token_text(token: Any) -> str:
    """A special token is written as its text, or as an object with its text in "content"."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""


def _chat_template(file: bytes | None, in_config: Any) -> str | None:
    """The template beside the tokenizer, else the config's: one string, or a list of named ones."""
    if file is not None:
        return file.decode()
    if isinstance(in_config, list):
        in_config = {entry.get("name"): entry.get("template") for entry in in_config}.get("default")
    return in_config if isinstance(in_config, str) else None
