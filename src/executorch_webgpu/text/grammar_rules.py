"""Grammars as text, in llguidance's dialect of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Any text; the name of a rule, because a lazy rule's body must be a terminal.
ANY = "/(?s:.*)/"
# Where JSON allows white space, what people write: a space, or a new line with its indentation. Never without end.
JSON_SPACE = r" |\r?\n(?: {0,80}|\t{0,20})"


def json_rule(schema: Mapping[str, Any] | bool) -> str:
    """The body of a rule for JSON that a schema allows."""
    given = {} if schema is True else schema
    return f"%json {json.dumps(with_options(given) if isinstance(given, Mapping) else given)}"


def with_options(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that says how llguidance takes it, for where nothing else does."""
    own = schema.get("x-guidance")
    options = {"whitespace_pattern": JSON_SPACE, **(own if isinstance(own, dict) else {}), "lenient": False}
    return {**schema, "x-guidance": options}


class GrammarRules:
    """Collects rules, and gives the names that others refer to them by.

    ``special``: ids of a tokenizer's special tokens by their text. A grammar cannot spell these, it names their ids.
    """

    def __init__(self, special: Mapping[str, int] | None = None) -> None:
        self._special = {text: index for text, index in (special or {}).items() if text}
        self._rules: dict[str, str] = {}

    def literal(self, text: str) -> str:
        """An expression for exactly this text."""
        if not self._special:
            return _quoted(text)
        longest_first = sorted(self._special, key=len, reverse=True)
        parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
        expressions = [
            f"<[{self._special[part]}]>" if part in self._special else _quoted(part) for part in parts if part
        ]
        return " ".join(expressions) or '""'

    def is_special(self, text: str) -> bool:
        """Whether this text is a special token."""
        return text in self._special

    def json(self, schema: Mapping[str, Any] | bool) -> str:
        """An expression for JSON that a schema allows."""
        return self.rule("json", json_rule(schema))

    def text_before(self, end: str) -> str:
        """An expression for any text up to and with the first ``end``."""
        marks = [at for text in self._special if (at := end.find(text)) >= 0]
        if marks:  # which no text holds; what comes before the mark is text like any other
            return f"{self.rule('text', ANY)} {self.literal(end[min(marks) :])}"
        return self.rule("text", f"/(?s:.*){_regex(end)}/", lazy=True)

    def rule(self, name: str, body: str, *, lazy: bool = False) -> str:
        """The name of a rule with this body; a rule that is there already is not made again."""
        head = "[lazy]" if lazy else ""
        for known, text in self._rules.items():
            if text == f"{head}: {body}":
                return known
        unique = f"{name}_{len(self._rules)}"
        self._rules[unique] = f"{head}: {body}"
        return unique

    def define(self, name: str, body: str) -> str:
        """Give a rule of this very name its body, which may refer to it. Returns the name."""
        self._rules[name] = f": {body}"
        return name

    def defined(self, name: str) -> bool:
        """Whether a rule has this name."""
        return name in self._rules

    def text(self, start: str) -> str:
        """The whole grammar, whose start is this expression."""
        return "\n".join([f"start: {start}", *(f"{name}{text}" for name, text in self._rules.items())]) + "\n"


def any_of(expressions: Iterable[str]) -> str:
    """One of several expressions."""
    alternatives = list(dict.fromkeys(expressions))
    return alternatives[0] if len(alternatives) == 1 else "(" + " | ".join(alternatives) + ")"


def several(expression: str, separator: str, *, parallel: bool) -> str:
    """The expression once, or more often if ``parallel``."""
    return f"{expression} ({separator} {expression})*" if parallel else expression


def in_order(expressions: Sequence[str]) -> str:
    """Expressions one after another."""
    return " ".join(expression for expression in expressions if expression not in ("", '""'))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _regex(text: str) -> str:
    return (
        re.sub(r"([^\w\s<>\"'=,:;!@#%&`~-])", r"\\\1", text)
        .replace("\n", "\\n")
        .replace("/", "\\/")
        .replace("\\\\/", "\\/")
    )
