"""Conversations as a chat template takes them: what it does not know is said in the ways that it knows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import InvalidInputError
from ..typed_text import Written, strings
from .families import CallFormat, IdStyle
from .template_probe import Abilities

Message = dict[str, Any]


def prepare(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    format: CallFormat,
    can: Abilities,
    ids: IdStyle,
) -> tuple[list[Message], dict[str, Any]]:
    """Messages and variables for the template. Raises InvalidInputError for calls that are none."""
    result = [_plain(message) for message in messages]
    result = _with_ids(_with_arguments(result), ids)
    if not can.developer:
        result = [{**message, "role": "system"} if message["role"] == "developer" else message for message in result]
    if tools and not can.tools:
        result = _described(result, [described(tool) for tool in tools], format)
    if not can.calls:
        result = [_call_as_text(message, format) for message in result]
    elif not can.parallel:
        result = _one_call_each(result)
    if not can.results:
        result = _results_as_user(result)
    if not can.system:
        result = _system_as_user(result)
    result = [_as_taken(message, can) for message in result]
    variables: dict[str, Any] = {"tools": []} if can.needs_tools else {}
    if tools and can.tools:
        variables[can.tools] = [described(tool) for tool in tools]
    if can.empty is None:
        variables["keep_none"] = True
    return result, variables


def described(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as templates expect it: all that they may read is there, and nothing that only the server reads."""
    function = {key: value for key, value in tool["function"].items() if key != "strict" and value is not None}
    function.setdefault("description", "")
    function.setdefault("parameters", {"type": "object", "properties": {}})
    return {"type": "function", "function": function}


def _plain(message: Mapping[str, Any]) -> Message:
    """The message with its content as one text, if it is parts of text only."""
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, Mapping) and _text_of(part) is not None for part in content):
        return {**message, "content": "".join(_text_of(part) or "" for part in content)}
    return dict(message)


def _text_of(part: Mapping[str, Any]) -> str | None:
    text = part.get("text", part.get("refusal"))
    return text if isinstance(text, str) else None


def _with_arguments(messages: list[Message]) -> list[Message]:
    """The messages with the arguments of calls as objects, and results with their tool's name."""
    names: dict[str, str] = {}
    result = []
    for at, message in enumerate(messages):
        calls = message.get("tool_calls")
        if calls:
            calls = [_call(call, f"messages[{at}].tool_calls[{number}]") for number, call in enumerate(calls)]
            names.update({call["id"]: call["function"]["name"] for call in calls})
            message = {**message, "tool_calls": calls}
        elif "tool_calls" in message:
            message = {key: value for key, value in message.items() if key != "tool_calls"}
        if message["role"] == "tool" and not message.get("name"):
            name = names.get(str(message.get("tool_call_id")))
            message = {**message, **({"name": name} if name else {})}
        result.append(message)
    return result


def _call(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidInputError(f"{where} has no function with a name; give it as it came in the answer")
    arguments = function.get("arguments")
    if not isinstance(arguments, Mapping):
        try:
            arguments = json.loads(arguments, strict=False) if arguments else {}
        except (ValueError, TypeError):
            arguments = None
        if not isinstance(arguments, dict):
            raise InvalidInputError(
                f"{where}.function.arguments is not the text of a JSON object; repair it, or leave the call out"
            )
    its = {**function, "arguments": dict(arguments)}
    return {"type": "function", **call, "id": str(call.get("id") or ""), "function": its}


def _with_ids(messages: list[Message], ids: IdStyle) -> list[Message]:
    """The messages with ids of calls as the family writes them."""
    if ids == "openai":
        return messages
    changed: dict[str, str] = {}
    count = 0
    result = []
    for message in messages:
        if message.get("tool_calls"):
            calls = []
            for call in message["tool_calls"]:
                name = call["function"]["name"]
                changed[call["id"]] = mistral_id(call["id"]) if ids == "mistral" else f"functions.{name}:{count}"
                calls.append({**call, "id": changed[call["id"]]})
                count += 1
            message = {**message, "tool_calls": calls}
        if message.get("tool_call_id") in changed:
            message = {**message, "tool_call_id": changed[message["tool_call_id"]]}
        result.append(message)
    return result


def mistral_id(text: str) -> str:
    """Nine letters and digits: the text if it is that, else made of it."""
    return text if re.fullmatch("[a-zA-Z0-9]{9}", text) else hashlib.sha256(text.encode()).hexdigest()[:9]


def _described(messages: list[Message], tools: Sequence[Mapping[str, Any]], format: CallFormat) -> list[Message]:
    """The messages with the tools described in the system's."""
    lines = [json.dumps(tool["function"], ensure_ascii=False) for tool in tools]
    example = format.render([("tool_name", {"argument_name": "value"})])
    text = (
        "You can call tools. Each line below describes one in JSON, with a JSON schema of its arguments:\n\n"
        + "\n".join(lines)
        + "\n\nWhen a tool helps to answer, call it by writing exactly this, with its name and arguments:\n\n"
        + example
        + "\n\nCall several tools by writing one such call after another. Then stop: the results come in the next "
        + "message. When no tool is needed, answer in plain text."
    )
    if messages and messages[0]["role"] in ("system", "developer"):
        said = str(messages[0].get("content") or "")
        content = Written.of(f"{said}\n\n{text}".strip(), format.marks, [said, *lines])
        return [{**messages[0], "content": content}, *messages[1:]]
    return [{"role": "system", "content": Written.of(text, format.marks, lines)}, *messages]


def _call_as_text(message: Message, format: CallFormat) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    text = format.render([(call["function"]["name"], call["function"]["arguments"]) for call in calls])
    content = message.get("content")
    typed = [str(content or ""), *(part for call in calls for part in strings(call["function"]))]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": Written.of(f"{content}\n{text}" if content else text, format.marks, typed)}


def _one_call_each(messages: list[Message]) -> list[Message]:
    """Messages of several calls as several messages, each followed by its results."""
    result: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            result.append(message)
            continue
        answers = []
        while at < len(messages) and messages[at]["role"] == "tool":
            answers.append(messages[at])
            at += 1
        for number, call in enumerate(calls):
            content = message if number == 0 else {"role": "assistant", "content": ""}
            mine = [answer for answer in answers if answer.get("tool_call_id") == call["id"]]
            answers = [answer for answer in answers if answer.get("tool_call_id") != call["id"]]
            result += [{**content, "tool_calls": [call]}, *mine]
        result += answers
    return result


def _results_as_user(messages: list[Message]) -> list[Message]:
    """Results of tools as messages of the user, those in a row as one."""
    result: list[Message] = []
    after_result = False
    for message in messages:
        if message["role"] != "tool":
            result.append(message)
            after_result = False
            continue
        text = f"<tool_response>\n{message.get('content') or ''}\n</tool_response>"
        if after_result:
            result[-1] = {"role": "user", "content": f"{result[-1]['content']}\n{text}"}
        else:
            result.append({"role": "user", "content": text})
        after_result = True
    return result


def _system_as_user(messages: list[Message]) -> list[Message]:
    """The messages with what the system says at the head of the user's first one."""
    said = [str(message.get("content") or "") for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    if not said:
        return messages
    head = "\n\n".join(said)
    if rest and rest[0]["role"] == "user" and isinstance(rest[0].get("content"), str):
        return [{**rest[0], "content": f"{head}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": head}, *rest]


def _as_taken(message: Message, can: Abilities) -> Message:
    """The message with arguments and content of the types that the template takes."""
    if message.get("tool_calls"):
        message = {**message, "content": message.get("content") or can.empty}
        if not can.objects:
            message["tool_calls"] = [_with_json_arguments(call) for call in message["tool_calls"]]
    if can.parts and isinstance(message.get("content"), str):
        return {**message, "content": [{"type": "text", "text": message["content"]}]}
    return message


def _with_json_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}
