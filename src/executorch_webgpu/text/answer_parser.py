"""An answer as it comes: reasoning, text and calls of tools, by what the model's chat template shows of its formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .answer_events import Event, Text
from .grammar_rules import GrammarRules
from .reasoning import ReasoningFormat, ReasoningSplitter, reasoning_format
from .tool_calls import ToolCallParser, ToolFormat, tool_format
from .tool_calls.tool_format import Tool


class AnswerParser:
    """Takes one answer's text in pieces; whatever the pieces, the events are the same once ``joined``."""

    def __init__(self, splitter: ReasoningSplitter | None, calls: ToolCallParser | None) -> None:
        self._splitter = splitter
        self._calls = calls

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._calls.calls if self._calls is not None else 0

    def push(self, text: str) -> list[Event]:
        """What this piece completes."""
        events: list[Event] = [Text(text)] if text else []
        if self._splitter is not None:
            events = self._splitter.push(text)
        return self._parsed(events)

    def finish(self) -> list[Event]:
        """What is left at the end of all text."""
        events = self._parsed(self._splitter.finish()) if self._splitter is not None else []
        return [*events, *(self._calls.finish() if self._calls is not None else ())]

    def _parsed(self, events: list[Event]) -> list[Event]:
        if self._calls is None:
            return events
        result: list[Event] = []
        for event in events:
            result += self._calls.push(event.text) if isinstance(event, Text) else [event]
        return result


@dataclass(frozen=True)
class AnswerFormat:
    """What answers of a model look like; make one with ``answer_format``. ``tools``: how it calls tools."""

    template: str | None
    tools: ToolFormat

    def special_tokens(self, *, tools: bool) -> tuple[str, ...]:
        """Texts of special tokens that a parser must see, so that decoding keeps them: reasoning's marks, and those of
        calls with ``tools``."""
        reasoning = reasoning_format(self.template)
        marks = (*(reasoning.special_tokens if reasoning else ()), *(self.tools.special_tokens if tools else ()))
        return tuple(dict.fromkeys(marks))

    def parser(self, prompt_text: str = "", tools: Sequence[Tool] = (), *, prefill: str = "") -> AnswerParser:
        """A parser for the answer to one prompt. Without ``tools`` (also where the request allows none) calls are text.

        ``prompt_text``: the rendered prompt. ``prefill``: the beginning of the answer, where the prompt ends with one.
        """
        reasoning = reasoning_format(self.template, prompt_text, prefill)
        splitter = reasoning.splitter(calls=bool(tools)) if reasoning is not None else None
        return AnswerParser(splitter, self.tools.parser(tools) if tools else None)

    def grammar(
        self,
        prompt_text: str,
        tools: Sequence[Tool],
        choice: str,
        *,
        parallel: bool = True,
        special: Mapping[str, int] | None = None,
        prefill: str = "",
    ) -> str | None:
        """A grammar, in llguidance's dialect of Lark, of answers to ``prompt_text`` that follow ``tool_choice``.

        ``choice``: "required", the name of a tool, or "auto". With "auto" text is free, and if a tool is ``strict``,
        the arguments of calls follow their schemas. None where nothing is forced, which "auto" is not, either, in
        families whose calls are told from text by more than one mark that is no special token.
        ``special``: ids of the tokenizer's special tokens by their text. ``prefill``: as for ``parser``.
        Raises InvalidInputError where ``choice`` names no tool.
        """
        if not tools or choice == "none" or (choice == "auto" and not any(_is_strict(tool) for tool in tools)):
            return None
        rules = GrammarRules(special)
        if choice == "auto":
            free = self.tools.free_expression(rules, tools, parallel=parallel)
            if free is None:
                return None
            expression = free
        else:
            expression = self.tools.expression(rules, tools, choice, parallel=parallel)
        return self._after_reasoning(rules, prompt_text, expression, prefill, text=False)

    def after_reasoning(
        self, prompt_text: str, body: str, special: Mapping[str, int] | None = None, *, prefill: str = ""
    ) -> str:
        """A grammar of answers that are ``body`` (the body of a rule, such as ``%json {...}``) after reasoning."""
        rules = GrammarRules(special)
        return self._after_reasoning(rules, prompt_text, rules.rule("answer", body), prefill, text=True)

    def _after_reasoning(
        self, rules: GrammarRules, prompt_text: str, expression: str, prefill: str, *, text: bool
    ) -> str:
        reasoning: ReasoningFormat | None = reasoning_format(self.template, prompt_text, prefill)
        return rules.text(expression if reasoning is None else reasoning.before(rules, expression, text=text))


def _is_strict(tool: Mapping[str, Any]) -> bool:
    return bool(tool["function"].get("strict"))


@lru_cache(maxsize=16)
def answer_format(template: str | None) -> AnswerFormat:
    """What answers of the model with this chat template (Jinja source) look like."""
    return AnswerFormat(template, tool_format(template))
