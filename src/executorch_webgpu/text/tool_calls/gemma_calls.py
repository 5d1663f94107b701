"""Gemma's calls: ``call:f{x:1,y:<escape>text<escape>}``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..grammar_rules import GrammarRules, any_of, in_order, several
from ..source import MAX_NAME, Parsing, Source
from .argument_rules import arguments_rule
from .literals import Literals
from .parser import Calls
from .schema_types import ALL_TYPES, allowed_types, resolved, string_options, with_definitions


@dataclass(frozen=True)
class GemmaCalls:
    """``opener`` and ``closer`` stand around each call; ``quote`` is the token around strings."""

    opener: str
    closer: str
    quote: str
    bare_openers: str = ""

    @property
    def literals(self) -> Literals:
        """How values are written."""
        return Literals((self.quote, '"'), escapes=False, bare_keys=True)

    @property
    def openers(self) -> Sequence[str]:
        return (self.opener,)

    @property
    def marks(self) -> tuple[str, ...]:
        return (self.opener, self.closer, self.quote)

    def read(self, source: Source, opener: str, calls: Calls) -> Parsing[None]:
        yield from source.space()
        yield from source.expect("call:")
        name, _ = yield from source.until(["{"], limit=MAX_NAME)
        source.at -= 1
        calls.begin(name.strip())
        yield from self.literals.take(source, calls.arguments)
        if (yield from source.closes(self.closer)):
            calls.accept()

    def render(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """The calls as the family writes them."""
        return "".join(f"{self.opener}call:{name}{self._text(arguments)}{self.closer}" for name, arguments in calls)

    def _text(self, value: Any) -> str:
        if isinstance(value, str):
            return f"{self.quote}{value}{self.quote}"
        if isinstance(value, Mapping):
            return "{" + ",".join(f"{key}:{self._text(item)}" for key, item in value.items()) + "}"
        if isinstance(value, list | tuple):
            return "[" + ",".join(map(self._text, value)) + "]"
        return json.dumps(value)

    def call_rule(self, rules: GrammarRules, name: str, schema: Mapping[str, Any]) -> str:
        """One call of one tool. Strings are any text, so of their schemas only ``enum`` and ``const`` hold."""
        body = arguments_rule(rules, schema, ":", ",", self._value_rule)
        return in_order((rules.literal(f"{self.opener}call:{name}{{"), body, rules.literal("}" + self.closer)))

    def grammar(self, rules: GrammarRules, calls: Sequence[str], *, parallel: bool) -> str:
        """An expression for calls that ``call_rule`` made the expressions of."""
        return several(rules.rule("call", any_of(calls)), "", parallel=parallel)

    def _value_rule(self, rules: GrammarRules, schema: Any, root: Mapping[str, Any], depth: int = 0) -> str:
        types = allowed_types(schema, root)
        schema = resolved(schema, root) if isinstance(schema, Mapping) else {}
        options = string_options(schema)
        if options is not None:
            return any_of(rules.literal(self._text(option)) for option in options)
        if types == ALL_TYPES or depth > 8:
            return self._any_rule(rules)
        expressions = []
        for kind in sorted(types - ({"integer"} if "number" in types else set())):
            expressions.append(self._rule_of(rules, kind, schema, root, depth))
        return any_of(expressions)

    def _rule_of(self, rules: GrammarRules, kind: str, schema: Any, root: Mapping[str, Any], depth: int) -> str:
        def inner(rules: GrammarRules, schema: Any, root: Mapping[str, Any]) -> str:
            return self._value_rule(rules, schema, root, depth + 1)

        if kind == "string":
            return in_order((rules.literal(self.quote), rules.text_before(self.quote)))
        if kind == "object":
            if not schema.get("properties"):
                return self._object_rule(rules)
            body = arguments_rule(rules, {**with_definitions({}, root), **schema}, ":", ",", inner)
            return rules.rule("object", in_order((rules.literal("{"), body, rules.literal("}"))))
        if kind == "array":
            item = inner(rules, schema.get("items", True), root)
            some = several(item, rules.literal(","), parallel=True)
            return rules.rule("array", in_order((rules.literal("["), f"({some})?", rules.literal("]"))))
        return rules.json({**with_definitions(schema, root), "type": kind})

    def _any_rule(self, rules: GrammarRules) -> str:
        string = in_order((rules.literal(self.quote), rules.text_before(self.quote)))
        scalar = rules.json({"type": ["number", "boolean", "null"]})
        array = in_order((rules.literal("["), '(any_value ("," any_value)*)?', rules.literal("]")))
        return rules.define("any_value", any_of((string, scalar, array, self._object_rule(rules))))

    def _object_rule(self, rules: GrammarRules) -> str:
        if not rules.defined("any_value"):
            rules.define("any_value", '""')  # its body comes below: objects hold values, and values may be objects
            self._any_rule(rules)
        pair = in_order((rules.rule("key", r"/[A-Za-z_][A-Za-z0-9_]*/"), rules.literal(":"), "any_value"))
        return rules.rule("any_object", in_order((rules.literal("{"), f'({pair} ("," {pair})*)?', rules.literal("}"))))
