"""The messages of a chat as a prompt, and how what follows it is to be read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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
    of those that it needs. ``grammar``: what the answer has to be. ``may_reason``: whether the model marks
    reasoning."""

    tokens: list[int]
    parser: Callable[[], Parser]
    special_tokens: Collection[str]
    grammar: Grammar | None
    call_id: Callable[[str, int], str]
    may_reason: bool


class TemplateFields(Protocol):
    """What a request says about the template, beside messages and tools."""

    chat_template_kwargs: dict[str, Any] | None


async def chat_prompt(language: Language, body: ChatRequest) -> ChatPrompt:
    """The prompt of a request. Raises ApiError."""
    form = answer_format(language.tokenizer.settings.chat_template)
    tools = [_tool(tool) for tool in body.tools or ()]
    forced, offered = _tool_choice(body.tool_choice, tools)
    tokens = await chat_tokens(language, body.messages, body.tools if offered else None, body)
    language.check_prompt(tokens, "messages")
    shown = language.tokenizer.decode(tokens[-SHOWN_TOKENS:], keep_special=True)
    begun = _begun_answer([_message(message, index) for index, message in enumerate(body.messages)], body) or ""

    def parser() -> AnswerParser:
        return form.parser(shown, offered, prefill=begun)

    grammar = grammar_of(body, body.response_format)
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
    return ChatPrompt(tokens, parser, kept, grammar, form.tools.new_id, may_reason)


async def chat_tokens(
    language: Language, messages: Sequence[Message], tools: Sequence[Tool] | None, fields: TemplateFields
) -> list[int]:
    """Tokens of messages in the model's chat template, up to the answer. Raises ApiError."""
    tokenizer = language.tokenizer
    form = answer_format(tokenizer.settings.chat_template).tools
    stated = [_message(message, index) for index, message in enumerate(messages)]
    begun = _begun_answer(stated, fields)
    before = stated[:-1] if begun is not None else stated
    stated_variables = _variables(fields)
    generation_prompt = getattr(fields, "add_generation_prompt", None) is not False or begun is not None

    def encode() -> list[int]:
        given, variables = form.prepare(before, [_tool(tool) for tool in tools or ()])
        variables |= stated_variables
        tokens = encode_chat(tokenizer, given, add_generation_prompt=generation_prompt, **variables)
        return tokens if not begun else [*tokens, *tokenizer.encode(begun, add_special=False)]

    try:
        characters = sum(len(str(each)) for each in stated) + sum(len(str(tool)) for tool in tools or ())
        return await language.encoded(encode, characters)
    except InvalidInputError as error:
        raise ApiError(400, str(error), "messages", "invalid_value") from error


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
            _part_text(part.model_dump(exclude_none=True), f"messages[{index}].content[{place}]")
            for place, part in enumerate(message.content)
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


def _tool(tool: Tool) -> dict[str, Any]:
    return tool.model_dump(exclude_none=True)


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
