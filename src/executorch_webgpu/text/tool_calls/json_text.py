"""JSON as a model writes it, read as it comes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from ..source import EndOfTextError, MismatchError, Parsing, Source

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SCALAR_END = re.compile(r"[\s,\]}<]")
_WORDS = ("true", "false", "null")
MAX_DEPTH = 64
MAX_SCALAR = 400


def take_value(source: Source, take: Callable[[str], None], depth: int = 0) -> Parsing[None]:
    """Read one JSON value and hand it on as it comes. Raises MismatchError where it is none.

    Control characters in strings, which models write and JSON forbids, are handed on escaped.
    """
    first = yield from source.need()
    if first == '"':
        yield from take_string(source, take)
    elif first in "{[" and depth < MAX_DEPTH:
        yield from _take_container(source, take, depth)
    else:
        take((yield from _scalar(source)))


def value_text(source: Source) -> Parsing[str]:
    """One JSON value, whole."""
    parts: list[str] = []
    yield from take_value(source, parts.append)
    return "".join(parts)


def read_string(source: Source, limit: int | None = None) -> Parsing[str]:
    """One JSON string, decoded, of no more than ``limit`` characters as written."""
    if (yield from source.need()) != '"':
        raise MismatchError
    parts: list[str] = []

    def take(part: str) -> None:
        parts.append(part)
        if limit is not None and sum(map(len, parts)) > limit:
            raise MismatchError

    yield from take_string(source, take)
    return str(json.loads("".join(parts)))


def take_string(source: Source, take: Callable[[str], None]) -> Parsing[None]:
    """Read a string with its quotes."""
    source.at += 1
    take('"')
    while True:
        character = yield from source.need()
        if match := _PLAIN.match(source.text, source.at):
            source.at = match.end()
            take(match[0])
            source.release()
        elif character == '"':
            source.at += 1
            take('"')
            return
        elif character == "\\":
            take((yield from _escape(source)))
        else:
            source.at += 1
            take(json.dumps(character)[1:-1])


def _escape(source: Source) -> Parsing[str]:
    while len(source.text) < source.at + 2 and not source.ended:
        yield
    kind = source.text[source.at + 1 : source.at + 2]
    size = 6 if kind == "u" else 2
    while len(source.text) < source.at + size and not source.ended:
        yield
    escape = source.text[source.at : source.at + size]
    if len(escape) < size:
        raise EndOfTextError
    if kind == "u" and not re.fullmatch("[0-9a-fA-F]{4}", escape[2:]):
        raise MismatchError
    source.at += size
    # Python's and LaTeX's escapes, which JSON has not: the backslash is meant.
    return escape if kind in '"\\/bfnrtu' else json.dumps(escape)[1:-1]


def _take_container(source: Source, take: Callable[[str], None], depth: int) -> Parsing[None]:
    opening = source.text[source.at]
    closing = "}" if opening == "{" else "]"
    source.at += 1
    take(opening)
    character = yield from _space(source, take)
    while character != closing:
        if opening == "{":
            if character != '"':
                raise MismatchError
            yield from take_string(source, take)
            yield from _punctuation(source, take, ":")
        yield from take_value(source, take, depth + 1)
        character = yield from _space(source, take)
        if character == ",":
            yield from _punctuation(source, take, ",")
            character = yield from source.need()
            if character == closing:
                raise MismatchError
        elif character != closing:
            raise MismatchError
    source.at += 1
    take(closing)


def _punctuation(source: Source, take: Callable[[str], None], character: str) -> Parsing[None]:
    if (yield from _space(source, take)) != character:
        raise MismatchError
    source.at += 1
    take(character)
    yield from _space(source, take)


def _space(source: Source, take: Callable[[str], None]) -> Parsing[str]:
    """Hand white space on. Returns what follows, which there must be."""
    while (character := (yield from source.need())) in " \t\r\n":
        source.at += 1
        take(character)
    return character


def _scalar(source: Source) -> Parsing[str]:
    while not (end := _SCALAR_END.search(source.text, source.at)) and not source.ended:
        if len(source.text) - source.at > MAX_SCALAR:
            raise MismatchError
        yield
    text = source.text[source.at : end.start() if end else len(source.text)]
    if len(text) > MAX_SCALAR:
        raise MismatchError
    if not (text in _WORDS or _NUMBER.fullmatch(text)):
        prefix = end is None and (any(word.startswith(text) for word in _WORDS) or _NUMBER.match(text + "0"))
        raise EndOfTextError if prefix else MismatchError
    source.at += len(text)
    return text
