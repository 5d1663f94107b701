"""What a chat template does with tools, calls and roles: found by rendering small conversations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...errors import InvalidInputError
from ..chat import render_chat

NAME, KEY, VALUE, NUMBER_KEY = "probe_tool", "probe_key", "probe value", "number_key"
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {
                KEY: {"type": "string", "description": "A text."},
                NUMBER_KEY: {"type": "integer", "description": "A number."},
            },
            "required": [KEY],
        },
    },
}
USER: dict[str, Any] = {"role": "user", "content": "probe question"}
# What templates call the tools that they are given.
TOOL_VARIABLES = ("tools", "xml_tools", "functions")
# The named tokens that a template may add to its text.
NAMED: dict[str, Any] = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "")


@dataclass(frozen=True)
class Abilities:
    """What a template writes of what it is given.

    ``tools``: the variable that it reads these from, if it shows them; ``needs_tools``: it reads ``tools`` even where
    there are none. ``calls``, ``results``, ``system``, ``developer``: these are in its text. ``objects``: it takes a
    call's arguments as an object, not as JSON text. ``empty``: the content of a message that is only calls.
    ``parallel``: it takes several calls in a message. ``parts``: it takes content only as a list of parts. ``shown``:
    how it shows ``probe_tool``, ``call`` how it writes a call of it, both with the conversation, ``two`` the same for
    two calls, and ``around`` what stands around an answer's text there.
    """

    tools: str = ""
    needs_tools: bool = False
    calls: bool = False
    results: bool = False
    system: bool = False
    developer: bool = False
    objects: bool = True
    empty: str | None = ""
    parallel: bool = True
    parts: bool = False
    shown: str = ""
    call: str = ""
    two: str = ""
    around: tuple[str, str] = ("", "")


def probe_call(value: str, *, objects: bool, number: int = 0) -> dict[str, Any]:
    """A call of the probe, as a message holds it."""
    arguments: Any = {KEY: value} if objects else f'{{"{KEY}": "{value}"}}'
    return {"id": f"probe000{number}", "type": "function", "function": {"name": NAME, "arguments": arguments}}


@lru_cache(maxsize=16)
def abilities(source: str) -> Abilities:
    """What the template with this source can do."""
    text = _render(source, [USER]) or _render(source, [USER], tools=[])
    parts = USER["content"] not in text and USER["content"] in _render(source, _as_parts([USER]))

    def render(messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        return _render(source, _as_parts(messages) if parts else messages, **{"tools": [], **variables})

    def writes(role: str) -> bool:
        return f"probe {role}" in render([{"role": role, "content": f"probe {role}"}, USER])

    found: dict[str, Any] = {
        "parts": parts,
        "system": writes("system"),
        # A template that writes any role that it is given knows no more of this one for it.
        "developer": "developer" in source and writes("developer"),
        "tools": next((name for name in TOOL_VARIABLES if NAME in render([USER], **{name: [TOOL]})), ""),
        "shown": render([USER], tools=[TOOL]),
        "needs_tools": not render([USER], tools=None) and bool(render([USER], tools=[])),
    }
    for objects, empty in ((o, e) for e in ("", None) for o in (True, False)):
        message = {"role": "assistant", "content": empty, "tool_calls": [probe_call(VALUE, objects=objects)]}
        call = render([USER, message], tools=[TOOL], keep_none=empty is None)
        as_object = VALUE in call and f'\\"{KEY}' not in call and f"'{KEY}'" not in call
        if not as_object or NAME not in _render(source, [USER, message], keep_none=empty is None) + call:
            continue
        two = [probe_call("probe one", objects=objects), probe_call("probe two", objects=objects, number=1)]
        both = render([USER, {**message, "tool_calls": two}], tools=[TOOL], keep_none=empty is None)
        result = {"role": "tool", "content": "probe result", "name": NAME, "tool_call_id": "probe0000"}
        return Abilities(
            **found,
            calls=True,
            objects=objects,
            empty=empty,
            parallel="probe one" in both and "probe two" in both,
            results="probe result" in render([USER, message, result], tools=[TOOL], keep_none=empty is None),
            call=call,
            two=both,
            around=_around(render([USER, {"role": "assistant", "content": VALUE}], tools=[TOOL])),
        )
    answer = {"role": "assistant", "content": VALUE}
    text = render([USER, answer, {"role": "tool", "content": "probe result", "name": NAME}], tools=[TOOL])
    return Abilities(**found, results=bool(re.search("[\"']tool[\"']", source)) and "probe result" in text)


def answer_text(source: str, can: Abilities, arguments: Sequence[Mapping[str, Any]]) -> str | None:
    """How the template writes an answer of calls of the probe with these arguments, without what stands around answers;
    None where that cannot be told."""
    calls = [probe_call(VALUE, objects=True, number=number) for number, _ in enumerate(arguments)]
    for call, its in zip(calls, arguments, strict=True):
        call["function"]["arguments"] = dict(its) if can.objects else json.dumps(its)
    messages: list[dict[str, Any]] = [USER, {"role": "assistant", "content": can.empty, "tool_calls": calls}]
    text = _render(source, _as_parts(messages) if can.parts else messages, tools=[TOOL], keep_none=can.empty is None)
    head, tail = can.around
    return text.removeprefix(head).removesuffix(tail) if head and text.startswith(head) else None


def _around(text: str) -> tuple[str, str]:
    before, found, after = text.rpartition(VALUE)
    return (before, after) if found else ("", "")


def _as_parts(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message.get("content"), str)
        else dict(message)
        for message in messages
    ]


def _render(source: str, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
    """The template's text; empty where it refuses the messages."""
    try:
        return render_chat(source, messages, add_generation_prompt=False, **{**NAMED, **variables})
    except InvalidInputError:
        return ""
