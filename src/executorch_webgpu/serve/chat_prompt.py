"""The messages of a chat as a prompt, and how what follows it is to be read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import InvalidInputError
from ..llm.grammar import Grammar
from ..text.answer_parser import AnswerParser
from ..text.chat import encode_chat
from ..text.reasoning import reasoning_format
from ..text.tool_calls import ToolFormat, tool_format
from .choice import Parser
from .errors import ApiError
from .language import Language
from .requests import ChatRequest, Message, NamedTool, Tool
from .sampling import grammar_of

SHOWN_TOKENS = 4096  # of the prompt's end, in which a block of reasoning may have been opened


@dataclass(frozen=True)
class ChatPrompt:
    """``tokens`` of the messages, up to the answer. ``parser`` makes what reads one answer; ``special_tokens``: texts
    of those that it needs. ``grammar``: what the answer has to be."""

    tokens: list[int]
    parser: Callable[[], Parser]
    special_tokens: Collection[str]
    grammar: Grammar | None
    call_id: Callable[[], str]


class TemplateFields(Protocol):
    """What a request says about the template, beside messages and tools."""

    chat_template_kwargs: dict[str, Any] | None


async def chat_prompt(language: Language, body: ChatRequest) -> ChatPrompt:
    """The prompt of a request. Raises ApiError."""
    template = language.tokenizer.settings.chat_template
    form = tool_format(template)
    tools = [_tool(tool) for tool in body.tools or ()]
    choice = _tool_choice(body.tool_choice, tools)
    offered = [] if choice == "none" else tools
    tokens = await chat_tokens(language, body.messages, body.tools if offered else None, body)
    language.check_prompt(tokens, "messages")
    shown = language.tokenizer.decode(tokens[-SHOWN_TOKENS:], keep_special=True)

    def parser() -> AnswerParser:
        return AnswerParser(template, offered, shown, choice)

    grammar = grammar_of(body)
    if offered and choice != "auto":
        if grammar is not None:
            message = f"response_format cannot be given with tool_choice {body.tool_choice!r}: the answer is a call"
            raise ApiError(400, message, "response_format", "invalid_value")
        grammar = Grammar.lark(form.grammar(offered, choice, body.parallel_tool_calls is not False))
    return ChatPrompt(tokens, parser, parser().special_tokens, grammar, form.new_id)


async def chat_tokens(
    language: Language, messages: Sequence[Message], tools: Sequence[Tool] | None, fields: TemplateFields
) -> list[int]:
    """Tokens of messages in the model's chat template, up to the answer. Raises ApiError."""
    tokenizer = language.tokenizer
    form = tool_format(tokenizer.settings.chat_template)
    stated = [_message(message, index) for index, message in enumerate(messages)]
    begun = _begun_answer(stated, fields)
    given, variables = form.prepare(stated[:-1] if begun is not None else stated, [_tool(tool) for tool in tools or ()])
    variables |= _variables(fields)
    generation_prompt = getattr(fields, "add_generation_prompt", None) is not False or begun is not None

    def encode() -> list[int]:
        tokens = encode_chat(tokenizer, given, add_generation_prompt=generation_prompt, **variables)
        return tokens if not begun else [*tokens, *tokenizer.encode(begun, add_special=False)]

    try:
        return await language.encoded(encode, sum(len(str(message.get("content", ""))) for message in stated))
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
    if taken := {"messages", "tools", "add_generation_prompt"} & variables.keys():
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


def _tool_choice(choice: str | NamedTool | None, tools: Sequence[dict[str, Any]]) -> str:
    """ "none", "auto", "required", or the name of a tool."""
    if choice is None:
        return "auto" if tools else "none"
    names = [tool["function"]["name"] for tool in tools]
    if isinstance(choice, NamedTool):
        if choice.function.name not in names:
            known = ", ".join(names) or "no tools"
            message = f"tool_choice names {choice.function.name!r}, but the request has {known}"
            raise ApiError(400, message, "tool_choice", "invalid_value")
        return choice.function.name
    if choice == "required" and not tools:
        raise ApiError(400, "tool_choice is 'required', but the request has no tools", "tool_choice", "invalid_value")
    return choice
