"""What the parts of an answer are, as they come: reasoning, text, and calls of tools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reasoning:
    """Some of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class Text:
    """Some of the answer's own text."""

    text: str


@dataclass(frozen=True)
class CallBegun:
    """A call of the tool ``name`` begins; ``index`` counts an answer's calls from 0."""

    index: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """Some of a call's arguments: all fragments of an index, joined, are a JSON object. Those of a call that the
    answer's end cut off, or that the model wrote wrong, are the beginning of one."""

    index: int
    json_fragment: str


Event = Reasoning | Text | CallBegun | CallArguments


def joined(events: Iterable[Event]) -> list[Event]:
    """The events with neighbours of one kind made one, and without empty ones: equal for every cutting of a text."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        match last, event:
            case Reasoning(before), Reasoning(text):
                result[-1] = Reasoning(before + text)
            case Text(before), Text(text):
                result[-1] = Text(before + text)
            case CallArguments(index, before), CallArguments(other, fragment) if index == other:
                result[-1] = CallArguments(index, before + fragment)
            case _, (Reasoning("") | Text("") | CallArguments(_, "")):
                pass
            case _:
                result.append(event)
    return result
