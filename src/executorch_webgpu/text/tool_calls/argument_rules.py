"""Grammar rules for arguments with their names, in the order of the schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..grammar_rules import GrammarRules, in_order, several

# Rules, a parameter's schema and that of all parameters, to an expression for its values.
ValueRule = Callable[[GrammarRules, Any, Mapping[str, Any]], str]
# A parameter's name, where the schema names none.
KEY = "/[A-Za-z_][A-Za-z0-9_]*/"


def is_free(schema: Mapping[str, Any]) -> bool:
    """Whether a schema names no parameter, and allows any."""
    return not schema.get("properties") and schema.get("additionalProperties") is not False


def arguments_rule(
    rules: GrammarRules, schema: Mapping[str, Any], equals: str, comma: str, value_rule: ValueRule
) -> str:
    """An expression for ``name=value, name=value``: all parameters that are required, and any of the others."""
    properties = dict(schema.get("properties") or {})
    if is_free(schema):
        one = in_order((rules.rule("key", KEY), rules.literal(equals), value_rule(rules, True, schema)))
        return f"({several(one, rules.literal(comma), parallel=True)})?"
    required = set(schema.get("required") or ())
    first, others = '""', '""'  # of the parameters from here on: with none before them, and after some
    for name in reversed(properties):
        value = value_rule(rules, properties[name], schema)
        one = rules.rule("argument", in_order((rules.literal(name + equals), value)))
        then = in_order((one, others))
        later = in_order((rules.literal(comma), one))
        if name in required:
            first, others = rules.rule("first", then), rules.rule("others", in_order((later, others)))
        else:
            first = rules.rule("first", f"{then} | {first}")
            others = rules.rule("others", in_order((f"({later})?", others)))
    return first
