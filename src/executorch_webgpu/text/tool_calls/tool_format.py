"""A model's way to call tools."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import InvalidInputError
from ..grammar_rules import ANY, GrammarRules, any_of, in_order
from .families import CallFormat, IdStyle
from .json_calls import JsonCalls
from .named_json import HarmonyCalls
from .parser import ToolCallParser
from .prepare import prepare
from .python_calls import PythonCalls
from .template_probe import Abilities
from .xml_calls import XmlCalls

Tool = Mapping[str, Any]


@dataclass(frozen=True)
class ToolFormat:
    """How a model calls tools. Tools and messages are as OpenAI's API has them.

    ``name``: the family's. ``calls``: how it writes calls. ``ids``: what its ids of calls look like. ``can``: what its
    chat template writes itself.
    """

    name: str
    calls: CallFormat
    ids: IdStyle = "openai"
    can: Abilities = field(default_factory=Abilities)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Texts of special tokens that the parser must see: decode with these kept."""
        return tuple(self.calls.marks)

    @property
    def parallel(self) -> bool:
        """Whether an answer may hold several calls."""
        return self.can.parallel and self.name != "harmony"

    def parser(self, tools: Sequence[Tool]) -> ToolCallParser:
        """A parser for one answer, which may call these tools."""
        return ToolCallParser(self.calls, {name_of(tool): schema_of(tool) for tool in tools})

    def prepare(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool] = ()
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Messages and template variables for ``encode_chat``: what the template does not know is said in ways that it
        knows, and tools that it does not show are described in the system's message.

        Raises InvalidInputError for a call in ``messages`` without name or with arguments that are no JSON object.
        """
        return prepare(messages, tools, self.calls, self.can, self.ids)

    def new_id(self, name: str = "", index: int = 0) -> str:
        """An id for a new call, the ``index``-th of its conversation, of the tool ``name``."""
        letters = string.ascii_letters + string.digits
        if self.ids == "mistral":
            return "".join(secrets.choice(letters) for _ in range(9))
        if self.ids == "kimi":
            return f"functions.{name}:{index}"
        return "call_" + "".join(secrets.choice(letters) for _ in range(24))

    def expression(
        self, rules: GrammarRules, tools: Sequence[Tool], choice: str = "required", *, parallel: bool = True
    ) -> str:
        """As ``grammar``, as an expression over ``rules``."""
        named = [tool for tool in tools if choice in ("required", "auto", name_of(tool))]
        if not named:
            raise InvalidInputError(f"tool_choice names {choice!r}, which is none of the tools; name one of them")
        calls = [self.calls.call_rule(rules, name_of(tool), schema_of(tool)) for tool in named]
        return self.calls.grammar(rules, calls, parallel=parallel and self.parallel)

    def free_expression(self, rules: GrammarRules, tools: Sequence[Tool], *, parallel: bool = True) -> str | None:
        """An expression for answers of text that may call tools, with arguments that follow their schemas.

        None for families of which a grammar cannot say this.
        """
        many = parallel and self.parallel
        openers, any_text = self.calls.openers, rules.rule("text", ANY)
        if isinstance(self.calls, HarmonyCalls):
            if not rules.is_special(openers[0]):
                return None
            preamble = in_order((rules.literal("<|channel|>commentary<|message|>"), rules.text_before("<|end|>")))
            call = self.expression(rules, tools, parallel=False)
            call = in_order((f"({in_order((preamble, rules.literal('<|start|>assistant')))})?", call))
            return any_of((call, in_order((rules.literal("<|channel|>final<|message|>"), any_text))))
        if openers and rules.is_special(openers[0]):
            call = rules.rule("calls", self.expression(rules, tools, parallel=many))
            marked = f"{any_text} ({call} {any_text})" + ("*" if many else "?")
            return any_of((marked, *self._bare_expression(rules, tools, many=many)))
        if isinstance(self.calls, JsonCalls | XmlCalls | PythonCalls) and openers:
            head = rules.text_before(openers[0])
            unmarked = replace(self, calls=replace(self.calls, opener=""))
            inside = many and self.calls.together
            call = rules.rule("calls", in_order((head, unmarked.expression(rules, tools, parallel=inside))))
            return in_order((f"({call})*", any_text)) if many else any_of((call, any_text))
        return any_of(bare) if (bare := self._bare_expression(rules, tools, many=many)) else None

    def _bare_expression(self, rules: GrammarRules, tools: Sequence[Tool], *, many: bool) -> Sequence[str]:
        """Calls without a mark, or text that does not begin as these do."""
        if not (self.calls.bare_openers and isinstance(self.calls, JsonCalls | PythonCalls)):
            return ()
        unmarked = replace(self, calls=replace(self.calls, opener="", closer=""))
        text = rules.rule("text", r"/([^{\[](?s:.*))?/")
        return (unmarked.expression(rules, tools, parallel=many), text)

    def grammar(
        self,
        tools: Sequence[Tool],
        choice: str = "required",
        *,
        parallel: bool = True,
        special: Mapping[str, int] | None = None,
    ) -> str:
        """A grammar, in llguidance's dialect of Lark, of answers that only call tools: any of them, or the one that
        ``choice`` names; several times if ``parallel`` and the family does that.

        ``special``: ids of the tokenizer's special tokens by their text (those of ``special_tokens`` count).
        Raises InvalidInputError where ``choice`` names no tool.
        """
        rules = GrammarRules(special)
        return rules.text(self.expression(rules, tools, choice, parallel=parallel))


def name_of(tool: Tool) -> str:
    """A tool's name."""
    return str(tool["function"]["name"])


def schema_of(tool: Tool) -> Mapping[str, Any]:
    """The JSON schema of a tool's arguments: an object's in any case."""
    schema = tool["function"].get("parameters")
    return {"type": "object", **schema} if isinstance(schema, Mapping) and schema else {"type": "object"}
