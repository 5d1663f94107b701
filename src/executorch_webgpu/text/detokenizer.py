"""Token ids back to text, all at once or as they come."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import tokenizers

# Byte-level BPE spells every byte as a printable character: itself, or one above U+0100 in order.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_LEVEL = [chr(byte) if byte in _PRINTABLE else chr(0x100 + _OTHERS.index(byte)) for byte in range(256)]
_BYTES = {character: byte for byte, character in enumerate(BYTE_LEVEL)}
# SentencePiece spells bytes that no piece covers one by one.
BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
# A stream decodes at least this many tokens again before it forgets them.
STREAM_CONTEXT = 8
# After so many tokens without a whole character at their end, a stream looks for another place to forget at.
MAX_UNFINISHED = 32


class Detokenizer:
    """Decodes by the tokenizer's own decoder, but for what that one gets wrong: of several byte tokens in a row, only
    the bytes that are not UTF-8 become U+FFFD, and a token that was added to a byte-level vocabulary is its own text.

    ``spelled``: texts of ids that the tokenizer has under another text; stray bytes as ``surrogateescape`` writes them.
    """

    def __init__(self, backend: tokenizers.Tokenizer, spelled: Mapping[int, str]) -> None:
        self._text_of = backend.id_to_token
        self._decoder = backend.decoder
        kinds = _kinds(json.loads(self._decoder.__getstate__())) if self._decoder is not None else frozenset()
        self._byte_level, self._byte_fallback = "ByteLevel" in kinds, "ByteFallback" in kinds
        added = backend.get_added_tokens_decoder()
        special = {token.content for token in added.values() if token.special}
        ordinary = {token.content for token in added.values()} - special
        self._special = {index for index, token in added.items() if token.special}
        self._special |= {index for index, text in spelled.items() if text in special}
        self._texts = {**{index: token.content for index, token in added.items()}, **spelled}
        self._spelling: dict[int, list[str]] = {}
        for index, text in [*((index, token.content) for index, token in added.items()), *spelled.items()]:
            self._spelling[index] = self._spell(text, added=text in ordinary or text in special)

    def decode(self, ids: Iterable[int], *, keep_special: bool, keep: Collection[str] = ()) -> str:
        """Text of token ids, without special tokens unless those are kept, all or those whose text is in ``keep``. Ids
        that are no token have none."""
        tokens: list[str] = []
        for index in ids:
            if index in self._spelling:
                if keep_special or index not in self._special or self._texts[index] in keep:
                    tokens += self._spelling[index]
            elif (text := self._text_of(index)) is not None:
                tokens.append(text)
        if self._byte_fallback:
            tokens = list(_with_bad_bytes_alone(tokens))
        return self._decoder.decode(tokens) if self._decoder is not None else " ".join(tokens)

    def raw(self, index: int) -> bytes | None:
        """The bytes that a token adds to a text that others have begun; None for an id that is no token.

        Those of a special token are its text's. Raises nothing: a token that the decoder writes in another way next to
        others has the bytes that it has after an x.
        """
        if index in self._spelling:
            tokens = self._spelling[index]
        elif (text := self._text_of(index)) is not None:
            tokens = [text]
        else:
            return None
        if self._byte_level:
            text = "".join(tokens)
            known = all(character in _BYTES for character in text)
            return bytes(_BYTES[character] for character in text) if known else text.encode("utf-8", "replace")
        if self._byte_fallback and all(map(BYTE_TOKEN.fullmatch, tokens)):
            return bytes(int(token[3:5], 16) for token in tokens)
        begun = " ".join(["x", *tokens]) if self._decoder is None else self._decoder.decode(["x", *tokens])
        return begun.removeprefix("x").encode("utf-8", "replace")

    @property
    def special(self) -> frozenset[int]:
        """Ids that have no text unless ``keep_special`` asks for it."""
        return frozenset(self._special)

    def _spell(self, text: str, *, added: bool) -> list[str]:
        """The text as tokens that the decoder makes exactly that text of."""
        stray = any("\udc80" <= character <= "\udcff" for character in text)
        raw = text.encode("utf-8", "surrogateescape")
        if self._byte_level and (added or stray):
            return ["".join(BYTE_LEVEL[byte] for byte in raw)]
        if self._byte_fallback and stray:
            return [f"<0x{byte:02X}>" for byte in raw]
        return [raw.decode("utf-8", "replace")]


def _with_bad_bytes_alone(tokens: list[str]) -> Iterable[str]:
    """The tokens, with U+FFFD for those bytes in a run of byte tokens that belong to no character: the decoder takes a
    run as a whole."""
    run = bytearray()
    for token in [*tokens, ""]:
        if match := BYTE_TOKEN.fullmatch(token):
            run.append(int(match[1], 16))
            continue
        for part in re.split("(\ufffd)", run.decode("utf-8", "replace")) if run else ():
            yield from [part] if part == "\ufffd" else (f"<0x{byte:02X}>" for byte in part.encode())
        run.clear()
        yield token


def _kinds(decoder: Mapping[str, object]) -> frozenset[str]:
    """Names of a decoder and of those that it is made of."""
    parts = decoder.get("decoders", ())
    assert isinstance(parts, Sequence)
    return frozenset({str(decoder.get("type"))}).union(*(_kinds(part) for part in parts))


def _end_of(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """The last tokens of a text, as many as what follows depends on: some with a text that begins with a character."""
    count = 4 * STREAM_CONTEXT
    while count < len(ids):
        text = decode(ids[-count:])
        if text and text[0] != "\ufffd":
            return list(ids[-count:])
        count *= 4
    return list(ids)


class TextStream:
    """Turns tokens into text as they come, in whole characters: the bytes of one may span several tokens. What was
    given away never changes.

    Decoding the last few tokens again each time keeps right what depends on a token's neighbours: characters,
    and the space before a word.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], after: Sequence[int]) -> None:
        self._decode = decode
        self._ids = _end_of(after, decode)
        self._boundary = 0  # so many of the ids end with a whole character
        self._shown = 0  # so many characters of their text were given away
        self._take(finished=False)

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        return self.push_all((token,))

    def push_all(self, tokens: Iterable[int]) -> str:
        """The text that these tokens complete, in one go."""
        self._ids.extend(tokens)
        return self._take(finished=False)

    def finish(self) -> str:
        """What is left of an unfinished character, as U+FFFD; empty in the usual case."""
        return self._take(finished=True)

    def _take(self, *, finished: bool) -> str:
        """The text not given away yet, less the U+FFFD at its end unless ``finished``: more bytes may make it a
        character. Those before it stay what they are, because a character's bytes are one U+FFFD while some lack."""
        text = self._decode(self._ids)
        whole = text if finished else text.removesuffix("\ufffd")
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        if whole == text:
            self._forget()
        elif len(self._ids) - self._boundary > MAX_UNFINISHED:
            self._forget_bad_bytes(text)
        return new

    def _forget(self) -> None:
        """At the end of a character, drop what stands before the last such place."""
        recent = self._ids[self._boundary :]
        # Special tokens have no text, and a word after nothing would lose its space: keep what has some.
        if self._boundary > STREAM_CONTEXT and (text := self._decode(recent)):
            self._ids, self._shown = recent, len(text)
        self._boundary = len(self._ids)

    def _forget_bad_bytes(self, text: str) -> None:
        """Drop tokens at a place where the text is that of the tokens before it, then that of those after it."""
        for cut in range(len(self._ids) - 1, len(self._ids) - STREAM_CONTEXT, -1):
            before, after = self._decode(self._ids[:cut]), self._decode(self._ids[cut:])
            if after and before + after == text and len(before) <= self._shown:
                self._ids, self._boundary, self._shown = self._ids[cut:], 0, self._shown - len(before)
                return
