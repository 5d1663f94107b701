"""The output items of a response, and the events that tell how they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..text.answer_events import CallArguments, CallBegun, Event, Reasoning, Text
from .http import new_id

Told = tuple[str, dict[str, Any]]  # an event's type, and what it holds


class ItemWriter:
    """Turns what comes of a text into items, one after another: reasoning, messages, calls. ``items``: those begun."""

    def __init__(self, call_id: Callable[[str, int], str]) -> None:
        self.items: list[dict[str, Any]] = []
        self._call_id = call_id
        self._open = False  # whether the last item goes on

    def write(self, events: Sequence[Event]) -> Iterator[Told]:
        """What happens when these come."""
        for each in events:
            match each:
                case Text(text):
                    if text:
                        yield from self._add_text("message", text)
                case Reasoning(text):
                    if text:
                        yield from self._add_text("reasoning", text)
                case CallBegun(index, name):
                    yield from self._begin_call(name, index)
                case CallArguments(_, fragment):
                    if fragment:
                        self.items[-1]["arguments"] += fragment
                        yield "response.function_call_arguments.delta", {**self._place(), "delta": fragment}

    def finish(self, cut_off: bool) -> Iterator[Told]:
        """What happens at the end; ``cut_off``: the text had no room to end. There is a message, or a call."""
        if not any(item["type"] != "reasoning" for item in self.items) and not cut_off:
            yield from self._begin_text("message")
        yield from self._close("incomplete" if cut_off else "completed")

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}

    def _begin(self, item: dict[str, Any]) -> Iterator[Told]:
        yield from self._close("completed")
        self.items.append(item)
        self._open = True
        shown = {**item, "content": []} if "content" in item else dict(item)
        yield "response.output_item.added", {"output_index": len(self.items) - 1, "item": shown}

    def _begin_text(self, kind: str) -> Iterator[Told]:
        if kind == "message":
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item = {"id": _id("msg"), "type": kind, "status": "in_progress", "role": "assistant", "content": [part]}
        else:
            part = {"type": "reasoning_text", "text": ""}
            item = {"id": _id("rs"), "type": kind, "status": "in_progress", "summary": [], "content": [part]}
        yield from self._begin(item)
        yield "response.content_part.added", {**self._place(), "content_index": 0, "part": dict(part)}

    def _add_text(self, kind: str, text: str) -> Iterator[Told]:
        if not self._open or self.items[-1]["type"] != kind:
            yield from self._begin_text(kind)
        self.items[-1]["content"][0]["text"] += text
        content: dict[str, Any] = {**self._place(), "content_index": 0, "delta": text}
        if kind == "message":
            yield "response.output_text.delta", {**content, "logprobs": []}
        else:
            yield "response.reasoning_text.delta", content

    def _begin_call(self, name: str, index: int) -> Iterator[Told]:
        head = {"id": _id("fc"), "type": "function_call", "status": "in_progress"}
        yield from self._begin({**head, "call_id": self._call_id(name, index), "name": name, "arguments": ""})

    def _close(self, status: str) -> Iterator[Told]:
        """End the last item."""
        if not self._open:
            return
        self._open = False
        item, place = self.items[-1], self._place()
        item["status"] = status
        if item["type"] == "function_call":
            done = {**place, "name": item["name"], "arguments": item["arguments"]}
            yield "response.function_call_arguments.done", done
        else:
            part = dict(item["content"][0])
            content = {**place, "content_index": 0, "text": part["text"]}
            if item["type"] == "message":
                yield "response.output_text.done", {**content, "logprobs": []}
            else:
                yield "response.reasoning_text.done", content
            yield "response.content_part.done", {**place, "content_index": 0, "part": part}
        yield "response.output_item.done", {"output_index": place["output_index"], "item": dict(item)}


def _id(kind: str) -> str:
    return new_id(kind).replace("-", "_")
