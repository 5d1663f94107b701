"""Calls whose name stands in the family's own marks, before arguments in JSON: Mistral, DeepSeek, Kimi, gpt-oss."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..grammar_rules import GrammarRules, any_of, in_order, several
from ..source import MAX_NAME, MismatchError, Parsing, Source
from .json_calls import json_call_rule, json_list, read_list, read_object
from .json_text import take_value
from .parser import Calls

Call = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class MistralCalls:
    """``[TOOL_CALLS]``, then a list of objects, or, of newer models, name, ``[ARGS]`` and the arguments of each call.
    Both are read; ``named`` says which one is written."""

    named: bool
    opener: str = "[TOOL_CALLS]"
    bare_openers: str = ""

    @property
    def openers(self) -> Sequence[str]:
        return (self.opener,)

    @property
    def marks(self) -> tuple[str, ...]:
        return ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")

    def read(self, source: Source, opener: str, calls: Calls) -> Parsing[None]:
        character = yield from source.space()
        if character == "[":
            yield from read_list(source, calls)
        elif character == "{":
            yield from read_object(source, calls)
        else:
            name, end = yield from source.until(["[ARGS]", "[CALL_ID]", "{"], limit=MAX_NAME)
            if end == "[CALL_ID]":
                yield from source.until(["[ARGS]"], limit=MAX_NAME)
            if end == "{":
                source.at -= 1
            yield from read_arguments(source, calls, name.strip())

    def render(self, calls: Sequence[Call]) -> str:
        """The calls as the family writes them."""
        if self.named:
            return "".join(f"[TOOL_CALLS]{name}[ARGS]{to_json(arguments)}" for name, arguments in calls)
        return "[TOOL_CALLS]" + to_json([{"name": name, "arguments": arguments} for name, arguments in calls])

    def call_rule(self, rules: GrammarRules, name: str, schema: Mapping[str, Any]) -> str:
        """One call of one tool."""
        if self.named:
            return in_order((rules.literal(f"[TOOL_CALLS]{name}[ARGS]"), rules.json(schema)))
        return json_call_rule(rules, "name", name, "arguments", schema)

    def grammar(self, rules: GrammarRules, calls: Sequence[str], *, parallel: bool) -> str:
        """An expression for calls that ``call_rule`` made the expressions of."""
        if self.named:
            return several(rules.rule("call", any_of(calls)), "", parallel=parallel)
        return in_order((rules.literal("[TOOL_CALLS]"), json_list(rules, calls, parallel=parallel)))


@dataclass(frozen=True)
class SectionCalls:
    """Calls in marks of their own inside of marks around all: DeepSeek's and Kimi's.

    ``call``: before the name, ``arguments`` after it, ``close`` at the end of a call. ``prefix`` and ``numbered``:
    "functions." before a name and ":0" after it. ``fence``: DeepSeek's older form, the type before ``arguments``, then
    the name and a block of code.
    """

    section: str
    section_close: str
    call: str
    arguments: str
    close: str
    prefix: str = ""
    numbered: bool = False
    fence: bool = False
    bare_openers: str = ""

    @property
    def openers(self) -> Sequence[str]:
        return (self.section, self.call) if self.section else (self.call,)

    @property
    def marks(self) -> tuple[str, ...]:
        parts = (self.section, self.section_close, self.call, self.arguments, self.close)
        return tuple(part for part in parts if len(part) > 2)

    def read(self, source: Source, opener: str, calls: Calls) -> Parsing[None]:
        if opener == self.section:
            yield from source.space()
            yield from source.expect(self.call)
        while True:
            yield from self._call(source, calls)
            if self.section_close and (yield from source.closes(self.section_close)):
                calls.accept()
                return
            if not (yield from source.closes(self.call)):
                return

    def _call(self, source: Source, calls: Calls) -> Parsing[None]:
        name, _ = yield from source.until([self.arguments], limit=MAX_NAME)
        fenced = False
        if (yield from source.space()) not in ("{", ""):
            # The older form, also from models whose template shows the newer one.
            name, end = yield from source.until(["```json", "\n"], limit=MAX_NAME)
            if end == "\n":
                yield from source.closes("```json")
            fenced = True
            yield from source.space()
        if self.numbered:
            name = re.sub(r":\d+\s*$", "", name.strip())
        yield from read_arguments(source, calls, name.strip().removeprefix(self.prefix))
        if fenced and (yield from source.closes("```")):
            calls.accept()
        if self.close and (yield from source.closes(self.close)):
            calls.accept()

    def render(self, calls: Sequence[Call]) -> str:
        """The calls as the family writes them."""
        parts = []
        for index, (name, arguments) in enumerate(calls):
            head, tail = self._around(name, str(index))
            parts.append(head + to_json(arguments) + tail)
        return self.section + ("\n" if self.fence else "").join(parts) + self.section_close

    def _around(self, name: str, number: str) -> tuple[str, str]:
        """What a call's arguments stand between."""
        if self.fence:
            return f"{self.call}function{self.arguments}{name}\n```json\n", f"\n```{self.close}"
        return f"{self.call}{self._numbered(name, number)}{self.arguments}", self.close

    def _numbered(self, name: str, number: str) -> str:
        return f"{self.prefix}{name}:{number}" if self.numbered else f"{self.prefix}{name}"

    def call_rule(self, rules: GrammarRules, name: str, schema: Mapping[str, Any]) -> str:
        """One call of one tool."""
        head, tail = self._around(name, "\0")
        before, *after = head.split("\0")
        number = (rules.rule("number", "/[0-9]+/"), rules.literal(after[0])) if after else ()
        return in_order((rules.literal(before), *number, rules.json(schema), rules.literal(tail)))

    def grammar(self, rules: GrammarRules, calls: Sequence[str], *, parallel: bool) -> str:
        """An expression for calls that ``call_rule`` made the expressions of."""
        all_ = several(rules.rule("call", any_of(calls)), rules.literal("\n") if self.fence else "", parallel=parallel)
        return in_order((rules.literal(self.section), all_, rules.literal(self.section_close)))


@dataclass(frozen=True)
class HarmonyCalls:
    """gpt-oss: a message to ``functions.NAME``, which ``<|call|>`` ends. What the message's head says besides, and in
    which order, varies."""

    bare_openers: str = ""

    @property
    def openers(self) -> Sequence[str]:
        # The last one where the prompt ends with "<|start|>assistant".
        return ("<|channel|>", "<|start|>", "to=functions.")

    @property
    def marks(self) -> tuple[str, ...]:
        return ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|call|>", "<|end|>", "<|return|>")

    def read(self, source: Source, opener: str, calls: Calls) -> Parsing[None]:
        head, _ = yield from source.until(["<|message|>"], limit=MAX_NAME)
        head = opener + head
        recipient = re.search(r"to=functions\.([^\s<]+)", head)
        if recipient is None:
            raise MismatchError
        yield from source.space()
        yield from read_arguments(source, calls, recipient[1])
        for end in ("<|call|>", "<|end|>"):
            if (yield from source.closes(end)):
                calls.accept()
                return

    def render(self, calls: Sequence[Call]) -> str:
        """The calls as the family writes them."""
        return "<|start|>assistant".join(
            f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{to_json(arguments)}<|call|>"
            for name, arguments in calls
        )

    def call_rule(self, rules: GrammarRules, name: str, schema: Mapping[str, Any]) -> str:
        """One call of one tool. ``<|call|>`` ends the answer, so it is no part of it."""
        head = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
        return in_order((rules.literal(head), rules.json(schema)))

    def grammar(self, rules: GrammarRules, calls: Sequence[str], *, parallel: bool) -> str:
        """An expression for one call: an answer of this family has no more."""
        return any_of(calls)


def read_arguments(source: Source, calls: Calls, name: str) -> Parsing[None]:
    """A call with an object of arguments."""
    if (yield from source.need()) != "{":
        raise MismatchError
    calls.begin(name)
    yield from take_value(source, calls.arguments)


def to_json(value: Any) -> str:
    """JSON as models write it."""
    return json.dumps(value, ensure_ascii=False)
