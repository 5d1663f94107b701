"""Texts cut into pieces at any place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

from hypothesis import strategies as st

from executorch_webgpu.text.answer_events import CallArguments, CallBegun, Event, Reasoning, Text, joined


class Parser(Protocol):
    def push(self, text: str) -> list[Event]: ...

    def finish(self) -> list[Event]: ...


def parsed(parser: Parser, pieces: Sequence[str]) -> list[Event]:
    """All events of a text that comes in these pieces."""
    events = [event for piece in pieces for event in parser.push(piece)]
    return joined([*events, *parser.finish()])


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def reasoning_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning))


def calls_of(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Names, and arguments as JSON text; each index follows the one before it."""
    calls: list[list[str]] = []
    for event in events:
        if isinstance(event, CallBegun):
            assert event.index == len(calls)
            calls.append([event.name, ""])
        elif isinstance(event, CallArguments):
            assert event.index == len(calls) - 1
            calls[-1][1] += event.json_fragment
    return [(name, arguments) for name, arguments in calls]


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


def cuttings(text: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.integers(0, max(1, len(text))), max_size=12).map(lambda places: cut(text, places))


SCHEMAS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "exact": {"type": ["boolean", "null"]},
            "options": {"type": "object"},
            "hours": {"type": "array", "items": {"type": "number"}},
            "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
        },
        "required": ["city"],
    },
    "get": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "ping": {"type": "object", "properties": {}},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"Tool {name}.", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
