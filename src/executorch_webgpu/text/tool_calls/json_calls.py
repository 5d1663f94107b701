"""Calls that are JSON: objects with the tool's name and its arguments, one by one or in a list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..grammar_rules import GrammarRules, any_of, in_order, several
from ..source import MAX_NAME, MismatchError, Parsing, Source
from .json_text import read_string, take_value, value_text
from .parser import Calls

NAME_KEYS = ("name", "tool_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args")
MAX_OTHER = 4096  # characters of what a call says beside name and arguments


@dataclass(frozen=True)
class JsonCalls:
    """``opener`` and ``closer`` stand around one object, around a list of them if ``listed``, or around lines of them
    if ``grouped``.

    ``name_key`` and ``arguments_key`` are those that the family writes; the others are read, too. ``bare``: calls come
    without the opener as well. ``separator``: between the blocks of several calls; ``inner``: white space inside
    of the marks.
    """

    opener: str
    closer: str = ""
    name_key: str = "name"
    arguments_key: str = "arguments"
    listed: bool = False
    grouped: bool = False
    bare: bool = False
    separator: str = "\n"
    inner: str = ""

    @property
    def together(self) -> bool:
        """Whether the marks stand around all calls of an answer."""
        return self.listed or self.grouped

    @property
    def openers(self) -> Sequence[str]:
        return (self.opener,) if self.opener else ()

    @property
    def bare_openers(self) -> str:
        return "{[" if self.bare or not self.opener else ""

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(mark for mark in (self.opener, self.closer) if mark)

    def read(self, source: Source, opener: str, calls: Calls) -> Parsing[None]:
        character = yield from source.space()
        if character == "[":
            yield from read_list(source, calls)
        else:
            yield from read_object(source, calls)
            while self.grouped and (yield from source.space()) == "{":
                yield from read_object(source, calls)
        yield from self._close(source, calls)

    def _close(self, source: Source, calls: Calls) -> Parsing[None]:
        """What ends a block, if it is there; a semicolon may stand between bare objects."""
        if (self.closer and (yield from source.closes(self.closer))) or (self.bare and (yield from source.closes(";"))):
            calls.accept()

    def render(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """The calls as the family writes them."""
        objects = [
            json.dumps({self.name_key: name, self.arguments_key: arguments}, ensure_ascii=False)
            for name, arguments in calls
        ]
        blocks = [f"[{', '.join(objects)}]"] if self.listed else ["\n".join(objects)] if self.grouped else objects
        return self.separator.join(f"{self.opener}{self.inner}{block}{self.inner}{self.closer}" for block in blocks)

    def call_rule(self, rules: GrammarRules, name: str, schema: Mapping[str, Any]) -> str:
        """One call of one tool, as an object."""
        return json_call_rule(rules, self.name_key, name, self.arguments_key, schema)

    def grammar(self, rules: GrammarRules, calls: Sequence[str], *, parallel: bool) -> str:
        """An expression for calls that ``call_rule`` made the expressions of."""
        opener, closer = rules.literal(self.opener + self.inner), rules.literal(self.inner + self.closer)
        if self.listed:
            return in_order((opener, json_list(rules, calls, parallel=parallel), closer))
        if self.grouped:
            lines = several(rules.rule("call", any_of(calls)), rules.literal("\n"), parallel=parallel)
            return in_order((opener, lines, rules.literal(self.inner), rules.literal(self.closer)))
        one = rules.rule("call", in_order((opener, any_of(calls), closer)))
        return several(one, rules.literal(self.separator), parallel=parallel)


def json_call_rule(rules: GrammarRules, name_key: str, name: str, arguments_key: str, schema: Mapping[str, Any]) -> str:
    """An object with a tool's name and its arguments."""
    head = f"{{{json.dumps(name_key)}: {json.dumps(name, ensure_ascii=False)}, {json.dumps(arguments_key)}: "
    return in_order((rules.literal(head), rules.json(schema), rules.literal("}")))


def json_list(rules: GrammarRules, calls: Sequence[str], *, parallel: bool) -> str:
    """A list of such objects."""
    one = rules.rule("call", any_of(calls))
    return in_order((rules.literal("["), several(one, rules.literal(", "), parallel=parallel), rules.literal("]")))


def read_list(source: Source, calls: Calls) -> Parsing[None]:
    """Objects in brackets."""
    source.at += 1
    if (yield from source.space()) == "]":
        raise MismatchError
    while True:
        yield from read_object(source, calls)
        character = yield from source.space()
        if not character:
            yield from source.need()
        if character not in ",]":
            raise MismatchError
        source.at += 1
        calls.accept()
        if character == "]":
            return
        yield from source.space()


def read_object(source: Source, calls: Calls) -> Parsing[None]:
    """One object. Its call begins once both the name and where the arguments begin are known."""
    if (yield from source.need()) != "{":
        raise MismatchError
    source.at += 1
    name, arguments, said = None, None, False
    character = yield from source.space()
    while True:
        key = yield from read_string(source, MAX_NAME)
        yield from _colon(source)
        character = yield from source.need()
        if key == "function" and character == "{" and name is None:
            yield from read_object(source, calls)
            name, said = "", True
        elif (key in NAME_KEYS or key == "function") and name is None:
            name = yield from read_string(source, MAX_NAME)
            if arguments is not None:
                _say(calls, name, arguments)
                said = True
        elif key in ARGUMENT_KEYS and not said and arguments is None:
            if name is not None and character == "{":
                calls.begin(name)
                yield from take_value(source, calls.arguments)
                said = True
            else:
                arguments = _as_object((yield from value_text(source)))
                if name is not None:
                    _say(calls, name, arguments)
                    said = True
        else:
            yield from _skip(source)
        if (yield from _next(source)) == "}":
            break
    if name is None:
        raise MismatchError
    if not said:
        _say(calls, name, "{}")
    else:
        calls.accept()


def _say(calls: Calls, name: str, arguments: str) -> None:
    calls.begin(name)
    calls.arguments(arguments)


def _as_object(text: str) -> str:
    """Arguments that are no object as they stand: a string with one in it, or nothing."""
    value = json.loads(text)
    if isinstance(value, str):
        try:
            inner = json.loads(value, strict=False) if value.strip() else {}
        except ValueError as error:
            raise MismatchError from error
        return value if isinstance(inner, dict) and inner else _as_object(json.dumps(inner))
    if value is None or value == [] or value == {}:
        return "{}"
    if not isinstance(value, dict):
        raise MismatchError
    return text


def _skip(source: Source) -> Parsing[None]:
    size = 0

    def take(part: str) -> None:
        nonlocal size
        size += len(part)
        if size > MAX_OTHER:
            raise MismatchError

    yield from take_value(source, take)


def _colon(source: Source) -> Parsing[None]:
    yield from source.space()
    yield from source.expect(":")
    yield from source.space()


def _next(source: Source) -> Parsing[str]:
    """Read the comma before another member, or the brace at the end."""
    yield from source.space()
    character = yield from source.expect(",", "}")
    if character == ",":
        yield from source.space()
    return character
