"""Calls as Python writes them, of Llama 4, LFM2 and others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..grammar_rules import GrammarRules, any_of, in_order, several
from ..source import MAX_NAME, MismatchError, Parsing, Source
from .argument_rules import arguments_rule
from .literals import Literals, inner_space
from .parser import Calls
from .schema_types import ALL_TYPES, allowed_types, with_definitions

_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_LITERALS = Literals(('"', "'"), escapes=True)
_WORDS = {"boolean": ("True", "False"), "null": ("None",)}
_NO_NAME = re.compile(r"[^\w.-]")


@dataclass(frozen=True)
class PythonCalls:
    """A list of calls, ``[f(x=1), g()]``, between marks or without any."""

    opener: str = ""
    closer: str = ""

    @property
    def together(self) -> bool:
        """Whether the marks stand around all calls of an answer."""
        return True

    @property
    def openers(self) -> Sequence[str]:
        return (self.opener,) if self.opener else ()

    @property
    def bare_openers(self) -> str:
        return "["

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(mark for mark in (self.opener, self.closer) if mark)

    def read(self, source: Source, opener: str, calls: Calls) -> Parsing[None]:
        yield from source.space()
        bracket = yield from source.next_is("[")
        while True:
            yield from source.space()
            yield from self._call(source, calls)
            if not bracket or not (yield from source.closes(",")):
                break
            calls.accept()
        if bracket:
            yield from source.space()
            yield from source.expect("]")
            calls.accept()
        if self.closer and (yield from source.closes(self.closer)):
            calls.accept()

    def _call(self, source: Source, calls: Calls) -> Parsing[None]:
        name, _ = yield from source.until(["("], limit=MAX_NAME)
        if not _NAME.fullmatch(name):
            raise MismatchError
        calls.begin(name)
        calls.arguments("{")
        positions = list(calls.schemas.get(name, {}).get("properties") or {})
        first = True
        while (yield from inner_space(source)) != ")":
            if not first:
                yield from source.expect(",")
                if (yield from inner_space(source)) == ")":
                    break
            key = yield from self._keyword(source)
            if key is None and not positions:
                raise MismatchError
            key = positions.pop(0) if key is None else key
            positions = [other for other in positions if other != key]
            calls.arguments(("" if first else ", ") + json.dumps(key, ensure_ascii=False) + ": ")
            yield from _LITERALS.take(source, calls.arguments)
            first = False
        source.at += 1
        calls.arguments("}")

    def _keyword(self, source: Source) -> Parsing[str | None]:
        """Read ``name=``; None, with nothing read, where a value stands alone."""
        start = source.at
        while not (end := _NO_NAME.search(source.text, source.at)) and not source.ended:
            yield
        key = source.text[source.at : end.start() if end else len(source.text)]
        source.at += len(key)
        character = yield from inner_space(source)
        if character == "=" and _NAME.fullmatch(key):
            source.at += 1
            yield from inner_space(source)
            return key
        source.at = start
        return None

    def render(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """The calls as the family writes them."""
        texts = [
            f"{name}({', '.join(f'{key}={_python(value)}' for key, value in arguments.items())})"
            for name, arguments in calls
        ]
        return f"{self.opener}[{', '.join(texts)}]{self.closer}"

    def call_rule(self, rules: GrammarRules, name: str, schema: Mapping[str, Any]) -> str:
        """One call of one tool."""
        return in_order(
            (rules.literal(f"{name}("), arguments_rule(rules, schema, "=", ", ", _value_rule), rules.literal(")"))
        )

    def grammar(self, rules: GrammarRules, calls: Sequence[str], *, parallel: bool) -> str:
        """An expression for calls that ``call_rule`` made the expressions of."""
        all_ = several(rules.rule("call", any_of(calls)), rules.literal(", "), parallel=parallel)
        return in_order((rules.literal(self.opener + "["), all_, rules.literal("]" + self.closer)))


def _python(value: Any) -> str:
    """A value in Python's spelling, with strings in double quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_python(str(key))}: {_python(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_python, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _value_rule(rules: GrammarRules, schema: Any, root: Mapping[str, Any]) -> str:
    """JSON, but for the words that Python spells in another way."""
    types = allowed_types(schema, root)
    words = [word for kind, names in _WORDS.items() if kind in types for word in names]
    if types == ALL_TYPES or not words:
        return rules.json(with_definitions(schema, root))
    rest = sorted(types - set(_WORDS))
    others = [rules.json({**with_definitions(schema, root), "type": rest})] if rest else []
    return any_of((*map(rules.literal, words), *others))
