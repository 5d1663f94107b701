"""Calls in the style of XML, a parameter an element, whose values are plain text: their types are the schema's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..grammar_rules import GrammarRules, any_of, in_order, several
from ..source import MAX_NAME, MismatchError, Parsing, Source
from .argument_rules import KEY, is_free
from .parser import Calls
from .schema_types import allowed_types, is_text_only, json_of_text, parameter_schema, string_options, with_definitions


@dataclass(frozen=True)
class XmlCalls:
    """``opener`` and ``closer`` stand around all calls, or around each one if not ``grouped``.

    A call is ``call``, its name and ``call_end``, its parameters, ``call_close``. A parameter is ``key``, its name and
    ``key_end``, ``value``, its value and ``value_close``. Some may be empty. ``line``: what stands between these
    elements. ``lines``: a value stands on lines of its own. ``bare``: models leave out the opener at times.
    ``cdata``: a value may stand in ``<![CDATA[`` and ``]]>``.
    """

    opener: str
    closer: str
    call: str
    call_end: str
    call_close: str
    key: str
    key_end: str
    value: str
    value_close: str
    line: str = "\n"
    lines: bool = False
    grouped: bool = False
    bare: bool = False
    cdata: bool = False

    @property
    def together(self) -> bool:
        """Whether the marks stand around all calls of an answer."""
        return self.grouped

    @property
    def openers(self) -> Sequence[str]:
        return (self.opener, self.call) if self.bare else (self.opener,)

    @property
    def bare_openers(self) -> str:
        return ""

    @property
    def marks(self) -> tuple[str, ...]:
        parts = (self.opener, self.closer, self.call, self.call_close, self.key, self.key_end)
        return tuple(part for part in (*parts, self.value, self.value_close) if len(part) > 2)

    def read(self, source: Source, opener: str, calls: Calls) -> Parsing[None]:
        if opener == self.opener:
            if self.call:
                yield from source.space()
                yield from source.expect(self.call)
        else:
            calls.bare = True
        while True:
            yield from self._call(source, calls)
            if self.closer and (yield from source.closes(self.closer)):
                calls.accept()
                return
            if not (self.grouped and (yield from source.closes(self.call))):
                return

    def _call(self, source: Source, calls: Calls) -> Parsing[None]:
        name = yield from self._name(source)
        calls.begin(name)
        schema = calls.schemas.get(name, {})
        calls.arguments("{")
        first = True
        while True:
            yield from source.space()
            found = yield from source.expect(self.key, self.call_close or self.closer)
            if found != self.key:
                if not self.call_close:
                    source.at -= len(found)
                break
            yield from self._parameter(source, calls, schema, first)
            first = False
        calls.arguments("}")

    def _name(self, source: Source) -> Parsing[str]:
        if self.call_end:
            name, _ = yield from source.until([self.call_end], limit=MAX_NAME)
            if "<" in name or "\n" in name:
                raise MismatchError
            return name
        # The name is a line, or ends where a tag begins.
        name, end = yield from source.until(["\n", "<"], limit=MAX_NAME)
        if end == "<":
            source.at -= 1
        if not name.strip() or any(character in name.strip() for character in ' {["'):
            raise MismatchError
        return name.strip()

    def _parameter(self, source: Source, calls: Calls, schema: Mapping[str, Any], first: bool) -> Parsing[None]:
        key, _ = yield from source.until([self.key_end], limit=MAX_NAME)
        if self.value:
            yield from source.space()
            yield from source.expect(self.value)
        if self.lines:
            yield from source.next_is("\n")
        ends = ["\n" + self.value_close, self.value_close] if self.lines else [self.value_close]
        if self.cdata and (yield from source.next_is("<![CDATA[")):
            ends = ["]]>" + self.value_close]
        head = ("" if first else ", ") + json.dumps(key, ensure_ascii=False) + ": "
        its = parameter_schema(schema, key)
        if not is_text_only(its, schema):
            text, _ = yield from source.until(ends)
            calls.arguments(head + json_of_text(text, its, schema))
            return
        calls.arguments(head + '"')
        yield from source.until(ends, take=lambda text: calls.arguments(json.dumps(text, ensure_ascii=False)[1:-1]))
        calls.arguments('"')

    def render(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """The calls as the family writes them."""
        texts = [self._render_call(name, arguments) for name, arguments in calls]
        blocks = ["\n".join(texts)] if self.grouped else texts
        return "\n".join(f"{self.opener}{self._inner}{block}{self._after}{self.closer}" for block in blocks)

    @property
    def _inner(self) -> str:
        return self.line if self.call else ""

    @property
    def _after(self) -> str:
        return self.line if self.call_close else ""

    @property
    def _value_head(self) -> str:
        """What stands between a parameter's name and its value."""
        return f"{self.key_end}{self.line if self.value else ''}{self.value}" + ("\n" if self.lines else "")

    def _render_call(self, name: str, arguments: Mapping[str, Any]) -> str:
        edge = "\n" if self.lines else ""
        parts = [f"{self.call}{name}{self.call_end}{self.line}"]
        for key, value in arguments.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            parts.append(f"{self.key}{key}{self._value_head}{text}{edge}{self.value_close}")
            parts.append(self.line)
        return "".join(parts) + self.call_close

    def call_rule(self, rules: GrammarRules, name: str, schema: Mapping[str, Any]) -> str:
        """One call of one tool. What may be a string is any text: of its schema only ``enum`` and ``const`` hold."""
        properties = schema.get("properties") or {}
        required = schema.get("required") or ()
        parts = [rules.literal(f"{self.call}{name}{self.call_end}{self.line}")]
        for key, its in properties.items():
            parameter = self._parameter_rule(rules, key, its, schema)
            parts.append(parameter if key in required else f"({parameter})?")
        if is_free(schema):
            tail = ("\n" if self.lines else "") + self.value_close
            free = (rules.literal(self.key), rules.rule("key", KEY), rules.literal(self._value_head))
            parts.append(f"({in_order((*free, rules.text_before(tail), rules.literal(self.line)))})*")
        parts.append(rules.literal(self.call_close))
        return in_order(parts)

    def grammar(self, rules: GrammarRules, calls: Sequence[str], *, parallel: bool) -> str:
        """An expression for calls that ``call_rule`` made the expressions of."""
        opener = rules.literal(self.opener + self._inner)
        # A literal of its own: what separates calls begins in the same way, and a longer one would hide it.
        closer = in_order((rules.literal(self._after), rules.literal(self.closer)))
        between = rules.literal("\n")
        if self.grouped:
            return in_order((opener, several(any_of(calls), between, parallel=parallel), closer))
        one = rules.rule("call", in_order((opener, any_of(calls), closer)))
        return several(one, between, parallel=parallel)

    def _parameter_rule(self, rules: GrammarRules, key: str, schema: Any, root: Mapping[str, Any]) -> str:
        head = rules.literal(f"{self.key}{key}{self._value_head}")
        tail = ("\n" if self.lines else "") + self.value_close
        if "string" in allowed_types(schema, root):
            options = string_options(schema)
            if options is None:
                return in_order((head, rules.text_before(tail), rules.literal(self.line)))
            body = any_of(rules.literal(option) for option in options)
        else:
            body = rules.json(with_definitions(schema, root))
        return in_order((head, body, rules.literal(tail + self.line)))
