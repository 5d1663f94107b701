"""The calls in an answer's text, as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..answer_events import CallArguments, CallBegun, Event, Text
from ..source import WHITE_SPACE, EndOfTextError, MismatchError, Parsing, Source, beginning

Schemas = Mapping[str, Mapping[str, Any]]


class CallReader(Protocol):
    """What a format knows about reading its calls."""

    @property
    def openers(self) -> Sequence[str]:
        """Texts that a call, or several, begin with."""

    @property
    def bare_openers(self) -> str:
        """Characters that a call may begin with where nothing stands before it, or only calls."""

    def read(self, source: Source, opener: str, calls: Calls) -> Parsing[None]:
        """Read calls after ``opener``. Raises MismatchError where there is none, or no further one."""


class Calls:
    """The calls that a format reads: it says here what it found.

    ``schemas``: the parameters' JSON schema of each tool, by its name. ``bare``: what is read now began without a
    mark of its own, so only the name of a tool makes it a call.
    """

    def __init__(self, schemas: Schemas, source: Source) -> None:
        self.schemas = schemas
        self.bare = False
        self.count = 0
        self.events: list[Event] = []
        self.begun = False
        self._source = source

    def begin(self, name: str) -> None:
        """A call begins. Raises MismatchError where the name cannot be one."""
        if not name or name != name.strip() or (self.bare and name not in self.schemas):
            raise MismatchError
        self.events.append(CallBegun(self.count, name))
        self.count += 1
        self.begun, self._source.held = True, False
        self.accept()

    def arguments(self, fragment: str) -> None:
        """More of the arguments of the call that began last."""
        self.events.append(CallArguments(self.count - 1, fragment))
        self.accept()

    def accept(self) -> None:
        """What was read up to here belongs to a call."""
        self._source.committed = self._source.at


class ToolCallParser:
    """Takes an answer's text in pieces and tells text from calls. Whatever the pieces, the events are the same once
    ``joined``.

    White space around calls is left out. What only looked like a call is text. Where a call goes on wrong after its
    name, it ends, and what follows is text.
    """

    def __init__(self, reader: CallReader, schemas: Schemas) -> None:
        self._reader = reader
        assert all(reader.openers), "an empty mark would be found for ever"
        self._source = Source()
        self._calls = Calls(schemas, self._source)
        self._parsing = self._run()
        self._finished = False

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._calls.count

    def push(self, text: str) -> list[Event]:
        """What this piece of text completes."""
        if text:
            self._source.text += text
            self._advance()
        return self._given()

    def finish(self) -> list[Event]:
        """What is left at the end of all text."""
        self._source.ended = True
        self._advance()
        return self._given()

    def _given(self) -> list[Event]:
        events, self._calls.events[:] = list(self._calls.events), []
        return events

    def _advance(self) -> None:
        if not self._finished:
            self._finished = next(self._parsing, self) is self

    def _say(self, text: str) -> None:
        if text:
            self._calls.events.append(Text(text))

    def _run(self) -> Parsing[None]:
        source, calls = self._source, self._calls
        after_call, bare = False, True
        while True:
            if after_call:
                yield from source.space()
            source.forget(source.at)
            opener = yield from self._first_opener() if bare else self._next_opener()
            if opener is None:
                return
            mark = source.at  # the text up to here is said, but for white space
            yield from source.space()
            at = source.at
            source.at += len(opener)
            calls.begun, calls.bare, source.held = False, not opener, True
            try:
                yield from self._reader.read(source, opener, calls)
                after_call, bare = calls.begun, True
            except MismatchError as error:
                if calls.begun and isinstance(error, EndOfTextError):
                    return  # the rest is the beginning of what ends a call
                after_call, bare = calls.begun, False
                source.at = source.committed
            if not calls.begun:
                source.held = False
                source.at = at + max(1, len(opener))
                self._say(source.text[mark : source.at])

    def _first_opener(self) -> Parsing[str | None]:
        """What a call begins with right here, after white space, which is not read; else as ``_next_opener``."""
        source, reader = self._source, self._reader
        start = source.at
        character = yield from source.space()
        opener = yield from source.next_is(*reader.openers)
        source.at = start
        if opener is None and character and character in reader.bare_openers:
            return ""
        return opener if opener is not None else (yield from self._next_opener())

    def _next_opener(self) -> Parsing[str | None]:
        """Say the text up to the next mark of a call, but for the white space before it; None at the end of all."""
        source, openers = self._source, self._reader.openers
        searched = source.at
        while True:
            text = source.text
            found = [(at, -len(opener), opener) for opener in openers if (at := text.find(opener, searched)) >= 0]
            kept = beginning(text, searched, openers)
            first = min(found, default=None)
            end = first[0] if first is not None and first[0] <= kept else kept
            if source.ended and first is None:
                self._say(text[source.at :])
                return None
            held = source.at + len(text[source.at : end].rstrip(WHITE_SPACE))
            self._say(text[source.at : held])
            source.at = held
            if first is not None and end == first[0]:
                return first[2]
            searched = kept - source.at
            source.forget(source.at)
            yield
