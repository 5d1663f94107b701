"""The messages of a chat as a prompt, and how what follows it is to be read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import InvalidInputError
from ..llm.grammar import Grammar
from ..text.answer_parser import AnswerParser, answer_format
from ..text.chat import encode_chat
from ..text.reasoning import reasoning_format
from .choice import Parser
from .errors import ApiError
from .language import Language
from .requests import ChatRequest, Message, NamedTool, Tool
from .sampling import grammar_of

# What templates get from elsewhere, and what says how they are rendered.
_RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "parse_special", "source", "tokenizer"})
SHOWN_TOKENS = 4096  # of the prompt's end, in which a block of reasoning may have been opened


@dataclass(frozen=True)
class ChatPrompt:
    """``tokens`` of the messages, up to the answer. ``parser`` makes what reads one answer; ``special_tokens``: texts
    of those that it needs. ``grammar``: what the answer has to be, by the field ``grammar_from``. ``may_reason``:
    whether the model marks reasoning."""

    tokens: list[int]
    parser: Callable[[], Parser]
    special_tokens: Collection[str]
    grammar: Grammar | None
    grammar_from: str
    call_id: Callable[[str, int], str]
    may_reason: bool


class TemplateFields(Protocol):
    """What a request says about the template, beside messages and tools."""

    chat_template_kwargs: dict[str, Any] | None


@dataclass(frozen=True)
class Conversation:
    """What a template is given: ``messages`` and ``tools``, as it reads them, further ``variables``, and whether the
    answer's turn is opened. ``begun``: the beginning of the answer, which follows; None where there is none."""

    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]]
    variables: Mapping[str, Any]
    generation_prompt: bool
    begun: str | None

    @classmethod
    def of(cls, messages: Sequence[Message], tools: Sequence[dict[str, Any]], fields: TemplateFields) -> Conversation:
        """The conversation of a request. Raises ApiError."""
        stated = [_message(message, index) for index, message in enumerate(messages)]
        begun = _begun_answer(stated, fields)
        opened = getattr(fields, "add_generation_prompt", None) is not False or begun is not None
        return cls(stated[:-1] if begun is not None else stated, tools, _variables(fields), opened, begun)

    async def tokens(self, language: Language) -> list[int]:
        """Its tokens in the model's chat template, up to the answer. Raises ApiError."""
        tokenizer = language.tokenizer
        form = answer_format(tokenizer.settings.chat_template).tools

        def encode() -> list[int]:
            given, variables = form.prepare(self.messages, self.tools)
            variables |= self.variables
            tokens = encode_chat(tokenizer, given, add_generation_prompt=self.generation_prompt, **variables)
            return [*tokens, *tokenizer.encode(self.begun, add_special=False)] if self.begun else tokens

        try:
            characters = sum(len(str(each)) for each in (*self.messages, *self.tools, self.begun or ""))
            return await language.encoded(encode, characters)
        except InvalidInputError as error:
            raise ApiError(400, str(error), "messages", "invalid_value") from error


async def chat_prompt(language: Language, body: ChatRequest) -> ChatPrompt:
    """The prompt of a request. Raises ApiError."""
    form = answer_format(language.tokenizer.settings.chat_template)
    tools = stated_tools(body.tools)
    forced, offered = _tool_choice(body.tool_choice, tools)
    conversation = Conversation.of(body.messages, tools if offered else (), body)
    tokens = await conversation.tokens(language)
    language.check_prompt(tokens, "messages")
    shown = language.tokenizer.decode(tokens[-SHOWN_TOKENS:], keep_special=True)
    begun = conversation.begun or ""

    def parser() -> AnswerParser:
        return form.parser(shown, offered, prefill=begun)

    grammar, grammar_from = grammar_of(body, body.response_format)
    special = language.tokenizer.named_special_ids
    may_reason = reasoning_format(form.template, shown, begun) is not None
    parallel = body.parallel_tool_calls is not False
    way = "required" if forced else "auto"
    calls = form.grammar(shown, forced or offered, way, parallel=parallel, special=special, prefill=begun)
    if calls is not None and grammar is not None:
        message = "response_format cannot be given with tools that are forced or strict: the answer is a call"
        raise ApiError(400, message, "response_format", "invalid_value")
    if calls is not None:
        grammar = Grammar.lark(calls)
    elif grammar is not None and grammar.has_rule_body and may_reason:
        # The model reasons first, in words of its own.
        grammar = Grammar.lark(form.after_reasoning(shown, grammar.rule_body, special, prefill=begun))
    kept = form.special_tokens(tools=bool(offered)) if body.skip_special_tokens is not False else special
    return ChatPrompt(tokens, parser, kept, grammar, grammar_from, form.tools.new_id, may_reason)


def _begun_answer(messages: Sequence[dict[str, Any]], fields: TemplateFields) -> str | None:
    """The beginning of the answer, where the last message is the assistant's and no new turn is asked for."""
    last = messages[-1]
    asked = getattr(fields, "continue_final_message", None)
    own = last["role"] == "assistant" and not last.get("tool_calls")
    if asked and not own:
        raise ApiError(
            400,
            "continue_final_message needs an assistant's message at the end",
            "continue_final_message",
            "invalid_value",
        )
    continues = own and asked is not False and (asked or getattr(fields, "add_generation_prompt", None) is not True)
    return str(last.get("content") or "") if continues else None


def _variables(fields: TemplateFields) -> dict[str, Any]:
    """What else the template is given."""
    variables = dict(fields.chat_template_kwargs or {})
    if (effort := getattr(fields, "reasoning_effort", None)) is not None:
        variables.setdefault("reasoning_effort", effort)
        variables.setdefault("enable_thinking", effort != "none")
    if (documents := getattr(fields, "documents", None)) is not None:
        variables["documents"] = documents
    if taken := _RESERVED & variables.keys():
        name = min(taken)
        raise ApiError(400, f"chat_template_kwargs cannot set {name}", "chat_template_kwargs", "invalid_value")
    return variables


def _message(message: Message, index: int) -> dict[str, Any]:
    """A message as templates read it: its parts are one text."""
    found = message.model_dump(exclude_none=True)
    if isinstance(message.content, list):
        found["content"] = "".join(
            _part_text(part, f"messages[{index}].content[{place}]") for place, part in enumerate(found["content"])
        )
    elif message.content is None:
        found["content"] = message.refusal or ""
    found.pop("refusal", None)
    return found


def _part_text(part: dict[str, Any], place: str) -> str:
    if part["type"] in ("text", "refusal") and isinstance(text := part.get(part["type"]), str):
        return text
    if part["type"] in ("text", "refusal"):
        raise ApiError(400, f"{place}.{part['type']} is missing", place, "invalid_value")
    raise ApiError(400, f"{place} is of type {part['type']!r}, but this model reads text only", place, "invalid_value")


def stated_tools(tools: Sequence[Tool] | None) -> list[dict[str, Any]]:
    """Tools as templates read them."""
    return [tool.model_dump(exclude_none=True) for tool in tools or ()]


def _tool_choice(choice: str | NamedTool | None, tools: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The tools of which one must be called, if any, and those that may be."""
    if isinstance(choice, NamedTool):
        named = [tool for tool in tools if tool["function"]["name"] == choice.function.name]
        if not named:
            known = ", ".join(tool["function"]["name"] for tool in tools) or "no tools"
            message = f"tool_choice names {choice.function.name!r}, but the request has {known}"
            raise ApiError(400, message, "tool_choice", "invalid_value")
        return named, named
    if choice == "required" and not tools:
        raise ApiError(400, "tool_choice is 'required', but the request has no tools", "tool_choice", "invalid_value")
    return (tools if choice == "required" else []), ([] if choice == "none" else tools)
