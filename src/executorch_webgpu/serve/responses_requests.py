"""The body of ``POST /v1/responses``, and the conversation that it means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from .errors import ApiError
from .requests import ChatRequest, DrawingFields, Many, Positive, RequestBody, api_error

# Fields that would do something, and do nothing here.
_REFUSED = {
    "background": "ask for a stream instead",
    "conversation": "use previous_response_id, or give all items",
    "prompt": "this server keeps no prompts",
    "top_logprobs": "chat completions have log probabilities",
}


class TextFormat(RequestBody):
    """What the text has to be."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(RequestBody):
    """``text`` of a request."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(RequestBody):
    """``reasoning`` of a request."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(DrawingFields):
    """``POST /v1/responses``. Beside what OpenAI has, tokens may be drawn as for chat completions."""

    input: str | Annotated[Many[dict[str, Any]], Field(min_length=1)]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    max_output_tokens: Positive | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Many[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    include: Many[str] | None = None


def input_items(request: ResponsesRequest) -> list[dict[str, Any]]:
    """The items of a request's input."""
    given = request.input
    return [{"role": "user", "content": given}] if isinstance(given, str) else [dict(item) for item in given]


@dataclass(frozen=True)
class Turns:
    """The messages of a conversation, and ``places``: where in the request each comes from."""

    messages: Sequence[dict[str, Any]]
    places: Sequence[str]

    @classmethod
    def of(cls, request: ResponsesRequest, before: Sequence[Mapping[str, Any]]) -> Turns:
        """Those of a request; ``before``: items of earlier responses. Raises ApiError."""
        messages: list[dict[str, Any]] = []
        places: list[str] = []
        if request.instructions is not None:
            messages.append({"role": "system", "content": request.instructions})
            places.append("instructions")
        for index, item in enumerate([*before, *input_items(request)]):
            place = f"input[{index - len(before)}]" if index >= len(before) else "previous_response_id"
            _add(messages, item, place)
            places += [place] * (len(messages) - len(places))
        return cls(messages, places)

    @contextmanager
    def naming_items(self) -> Iterator[None]:
        """Errors that name a message name the item of the request that it comes from."""

        def place_of(found: re.Match[str]) -> str:
            return self.places[int(found[1])]

        try:
            yield
        except ApiError as error:
            message = re.sub(r"\bmessages\[(\d+)\]", place_of, error.message)
            param = error.param and re.sub(r"^messages\[(\d+)\]", place_of, error.param)
            raise replace(error, message=message, param="input" if param == "messages" else param) from None


def chat_request(request: ResponsesRequest, turns: Turns) -> ChatRequest:
    """The request as one for chat completions. Raises ApiError."""
    for name, instead in _REFUSED.items():
        if getattr(request, name):
            raise ApiError(400, f"{name} is not supported: {instead}", name, "unsupported_parameter")
    if asked := [each for each in request.include or () if "logprobs" in each]:
        message = f"include: {asked[0]} is not supported: chat completions have log probabilities"
        raise ApiError(400, message, "include", "unsupported_parameter")
    fields: dict[str, Any] = {
        "messages": turns.messages,
        "max_completion_tokens": request.max_output_tokens,
        "tools": [_tool(tool, index) for index, tool in enumerate(request.tools or ())] or None,
        "tool_choice": _choice(request.tool_choice),
        "parallel_tool_calls": request.parallel_tool_calls,
        "response_format": _format(request.text),
        "reasoning_effort": None if request.reasoning is None else request.reasoning.effort,
        "continue_final_message": False,
    }
    fields |= {name: getattr(request, name) for name in DrawingFields.model_fields if name != "stream"}
    fields["structured_outputs"] = _as_given(request.structured_outputs)
    try:
        return ChatRequest.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise api_error(error) from None


def _as_given(body: RequestBody | None) -> dict[str, Any] | None:
    return None if body is None else body.model_dump(by_alias=True, exclude_none=True)


def _add(messages: list[dict[str, Any]], item: Mapping[str, Any], place: str) -> None:
    """Add an item to the messages that it belongs to."""
    kind = item.get("type", "message")
    match kind:
        case "message":
            messages.append({"role": item.get("role"), "content": _content(item.get("content"), place)})
        case "function_call":
            call = {"name": item.get("name"), "arguments": item.get("arguments", "")}
            entry = {"id": item.get("call_id"), "type": "function", "function": call}
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(entry)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [entry]})
        case "function_call_output":
            output = _content(item.get("output"), place)
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        case "reasoning":
            pass  # templates leave the reasoning of earlier turns out
        case _:
            known = "message, function_call, function_call_output and reasoning"
            raise ApiError(400, f"{place} is of type {kind!r}; known ones are {known}", place, "invalid_value")


def _content(content: Any, place: str) -> Any:
    if not isinstance(content, list):
        return content
    parts: list[Any] = []
    for part in content:
        if isinstance(part, dict) and part.get("type") in ("input_text", "output_text"):
            parts.append({"type": "text", "text": part.get("text")})
        else:
            parts.append(part)  # which the check of messages refuses, with its place
    return parts


def _tool(tool: Mapping[str, Any], index: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        message = f"tools[{index}] is of type {tool.get('type')!r}; this server has tools of type 'function' only"
        raise ApiError(400, message, f"tools[{index}].type", "unsupported_parameter")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _choice(choice: str | Mapping[str, Any] | None) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    if choice.get("type") != "function":
        message = f"tool_choice is of type {choice.get('type')!r}; it can be 'function' with a name"
        raise ApiError(400, message, "tool_choice", "unsupported_parameter")
    return {"type": "function", "function": {"name": choice.get("name")}}


def _format(text: TextOptions | None) -> Any:
    if text is None or text.format is None:
        return None
    form = text.format
    if form.type != "json_schema":
        return {"type": form.type}
    if form.schema_ is None:
        raise ApiError(400, "text.format.schema is missing", "text.format.schema", "invalid_value")
    return {"type": "json_schema", "json_schema": {"name": form.name or "answer", "schema": form.schema_}}
