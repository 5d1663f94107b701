"""Values as programming languages write them, read as they come and handed on as JSON."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from ..source import MAX_NAME, EndOfTextError, MismatchError, Parsing, Source

Take = Callable[[str], None]
_SCALAR_END = re.compile(r"[\s,\])}:=<]")
_WORDS = {"true": "true", "false": "false", "none": "null", "null": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0", "\n": ""}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
MAX_DEPTH = 32
MAX_SCALAR = 400


@dataclass(frozen=True)
class Literals:
    """How a language writes values. ``quotes``: what strings stand in. ``escapes``: a backslash is one in strings.
    ``bare_keys``: the keys of objects have no quotes."""

    quotes: tuple[str, ...]
    escapes: bool
    bare_keys: bool = False

    def take(self, source: Source, take: Take, depth: int = 0) -> Parsing[None]:
        """Read a value and hand on what it is in JSON, as it comes."""
        quote = yield from self._quote(source)
        if quote is not None:
            yield from self._string(source, quote, take)
            return
        character = yield from source.need()
        if character in "[({" and depth < MAX_DEPTH:
            yield from self._container(source, take, depth)
        else:
            take((yield from _scalar(source)))

    def _quote(self, source: Source) -> Parsing[str | None]:
        return (yield from source.next_is(*self.quotes))

    def _string(self, source: Source, quote: str, take: Take) -> Parsing[None]:
        take('"')
        ends = [quote, "\\"] if self.escapes else [quote]
        while True:
            _, end = yield from source.until(ends, take=lambda text: take(json.dumps(text, ensure_ascii=False)[1:-1]))
            if end == quote:
                break
            take((yield from _python_escape(source)))
        take('"')

    def _container(self, source: Source, take: Take, depth: int) -> Parsing[None]:
        closing = {"[": "]", "(": ")", "{": "}"}[source.text[source.at]]
        source.at += 1
        take("{" if closing == "}" else "[")
        first = True
        while (yield from inner_space(source)) != closing:
            if not first:
                yield from source.expect(",")
                if (yield from inner_space(source)) == closing:
                    break  # Python allows a comma at the end
                take(", ")
            first = False
            if closing == "}":
                yield from self._key(source, take)
                yield from source.expect(":")
                yield from inner_space(source)
                take(": ")
            yield from self.take(source, take, depth + 1)
        source.at += 1
        take("}" if closing == "}" else "]")

    def _key(self, source: Source, take: Take) -> Parsing[None]:
        quote = yield from self._quote(source)
        if quote is not None:
            yield from self._string(source, quote, take)
        elif self.bare_keys:
            key, _ = yield from source.until([":"], limit=MAX_NAME)
            source.at -= 1
            take(json.dumps(key.strip(), ensure_ascii=False))
        else:
            take(json.dumps((yield from _scalar(source))))
        yield from inner_space(source)


def inner_space(source: Source) -> Parsing[str]:
    """Read white space. Returns what follows, which there must be."""
    character = yield from source.space()
    if not character:
        raise EndOfTextError
    return character


def _scalar(source: Source) -> Parsing[str]:
    """A number or a word, as JSON."""
    while not (end := _SCALAR_END.search(source.text, source.at)) and not source.ended:
        if len(source.text) - source.at > MAX_SCALAR:
            raise MismatchError
        yield
    if end is None:
        raise EndOfTextError
    text = source.text[source.at : end.start()]
    if len(text) > MAX_SCALAR:
        raise MismatchError
    result = _WORDS.get(text.lower()) or _number(text)
    source.at = end.start()
    return result


def _number(text: str) -> str:
    try:
        value = ast.literal_eval(text)
        if isinstance(value, int | float):
            return json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    raise MismatchError


def _python_escape(source: Source) -> Parsing[str]:
    """What comes after a backslash, as the inside of a JSON string."""
    kind = yield from source.need()
    digits = _HEX_DIGITS.get(kind, 0)
    while len(source.text) <= source.at + digits and not source.ended:
        yield
    code = source.text[source.at + 1 : source.at + 1 + digits]
    if len(code) < digits:
        raise EndOfTextError
    source.at += 1 + digits
    if digits:
        try:
            return json.dumps(chr(int(code, 16)))[1:-1]
        except (ValueError, OverflowError):
            raise MismatchError from None
    # Another escape than Python's is a backslash and what follows it.
    text = kind if kind in "\\'\"" else _ESCAPES.get(kind, "\\" + kind)
    return json.dumps(text, ensure_ascii=False)[1:-1]
