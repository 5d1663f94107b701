"""A text as it comes from the engine: tokens become text, reasoning and calls of tools, up to a stop string."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, Protocol

from ..llm.stop_strings import StopStrings, unspoken_tokens
from ..llm.stream import StreamEnd, TokenLogprobs
from ..text.answer_events import CallBegun, Event, Reasoning, Text
from ..text.tokenizer import Tokenizer
from .engine_client import EngineText
from .errors import ApiError
from .metrics import Metrics

FinishReason = Literal["stop", "length", "tool_calls"]


class Parser(Protocol):
    """Takes a text in pieces, and gives what they are."""

    def push(self, text: str) -> list[Event]: ...

    def finish(self) -> list[Event]: ...


class PlainText:
    """A text that is nothing else."""

    def push(self, text: str) -> list[Event]:
        """The text itself."""
        return [Text(text)] if text else []

    def finish(self) -> list[Event]:
        """Nothing is held back."""
        return []


@dataclass
class Part:
    """What came of a text. ``tokens`` with their ``logprobs``, where they are asked for, and with the ``places`` where
    they begin in the text, in characters; ``finish``: why it ended."""

    events: list[Event]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    finish: FinishReason | None = None


@dataclass(frozen=True)
class ChoiceOptions:
    """How a text is read. ``special``: texts of special tokens that are kept; ``most``: tokens, which may be none;
    ``reasoning``: whether some of it may be that, whose tokens are counted; ``calls``: of tools, before whose next one
    the text ends. ``included``: whether stop strings are a part of the text, and the tokens that end it with them,
    ``stop_tokens``. ``least``: tokens before which neither counts."""

    stop: Sequence[str] = ()
    logprobs: bool = False
    special: Collection[str] = ()
    most: int | None = None
    reasoning: bool = False
    calls: int | None = None
    included: bool = False
    stop_tokens: Collection[int] = ()
    least: int = 0


class Choice:
    """One text of a request. ``parts`` may be iterated once."""

    def __init__(
        self, text: EngineText, tokenizer: Tokenizer, prompt: Sequence[int], parser: Parser, options: ChoiceOptions
    ) -> None:
        self._text, self._parser, self._options = text, parser, options
        self._decoded = tokenizer.stream(after=prompt, keep=options.special)
        self._stops = StopStrings(options.stop, options.included)
        self._unspoken = {
            id: tokenizer.decode([id], keep_special=True) if options.included else ""
            for id in unspoken_tokens(tokenizer, options.stop)
        }
        self._stopped = False  # by a token
        self._called_enough = False
        self._prompt_tokens = len(prompt)
        self._characters = 0  # decoded so far
        self._reasoning = False  # what came last
        self.tokens: list[int] = []
        self.reasoning_tokens = 0
        self.cached_tokens = 0
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.began = perf_counter()
        self.first = True  # of its prompt

    def cancel(self) -> None:
        """End the text, if it goes on."""
        self._text.cancel()

    async def accepted(self) -> None:
        """Wait until the engine has taken it. Raises ApiError if it has not."""
        await self._text.accepted()

    async def parts(self, metrics: Metrics) -> AsyncIterator[Part]:
        """What comes, at least one part with a token, or with the end. Raises ApiError for what ended the text."""
        called, ended = False, "cancelled"
        last: float | None = None
        finish: FinishReason | None = None
        try:
            while finish is None:
                came = await self._text.next()
                now = perf_counter()
                self.cached_tokens = self.cached_tokens if came.cached_tokens is None else came.cached_tokens
                self.prompt_logprobs += came.prompt_logprobs or ()
                part = self._read(came.tokens, came.logprobs or [])
                if part.tokens:
                    if last is None:
                        metrics.first_token(now - self.began)
                        metrics.prompt(self._prompt_tokens, self.cached_tokens)
                    metrics.tokens(len(part.tokens), None if last is None else now - last)
                last = now
                finish = self._finished(came.end, part)
                called = called or any(not isinstance(each, Text | Reasoning) for each in part.events)
                if finish is not None:
                    part.finish = finish = "tool_calls" if called and finish == "stop" else finish
                yield part
        except ApiError:
            ended = "error"
            raise
        finally:
            self._text.cancel()  # of a text that has ended this changes nothing
            metrics.finished(finish or ended)

    def _read(self, tokens: list[int], logprobs: list[TokenLogprobs]) -> Part:
        """Tokens up to a stop string, if there is one. One at a time only where it matters which one ends the text."""
        part = Part([])
        if self._options.most is not None:  # an engine draws at least one
            tokens = tokens[: self._options.most - len(self.tokens)]
        options = self._options
        singly = options.stop or options.stop_tokens or options.logprobs or options.reasoning
        for group in [[token] for token in tokens] if singly else [tokens] if tokens else []:
            part.tokens += group
            part.places.append(self._characters)
            text = self._decoded.push_all(group)
            self._characters += len(text)
            early = len(self.tokens) + len(part.tokens) <= options.least
            events = self._wanted(self._parser.push(text if early else self._stops.push(text)))
            self._reasoning = isinstance(events[-1], Reasoning) if events else self._reasoning
            self.reasoning_tokens += len(group) if self._reasoning else 0
            part.events += events
            if not early and group[-1] in self._unspoken:
                rest = self._stops.finish() + self._unspoken[group[-1]]
                part.events += self._wanted(self._parser.push(rest))
                self._stopped = True
            if not early and group[-1] in options.stop_tokens:
                self._stopped = True
            if self._stops.found or self._stopped or self._called_enough:
                break
        self.tokens += part.tokens
        part.logprobs = logprobs[: len(part.tokens)]
        return part

    def _wanted(self, events: list[Event]) -> list[Event]:
        """Events up to the first call that is one too many."""
        if self._called_enough:
            return []
        most = self._options.calls
        for place, each in enumerate(events if most is not None else ()):
            if isinstance(each, CallBegun) and most is not None and each.index >= most:
                self._called_enough = True
                return events[:place]
        return events

    def _finished(self, end: StreamEnd | None, part: Part) -> FinishReason | None:
        stopped = self._stops.found or self._stopped or self._called_enough
        if not stopped and end is None:
            return None
        rest = self._stops.push(self._decoded.finish()) + self._stops.finish()
        part.events += self._wanted([*self._parser.push(rest), *self._parser.finish()])
        return "stop" if stopped or self._stops.found or end == "eos" else "length"


async def merged(choices: Sequence[Choice], metrics: Metrics) -> AsyncIterator[tuple[int, Part]]:
    """The parts of several texts, as they come, with the index of their text. Ends all when it is closed."""
    if len(choices) == 1:
        async with aclosing(choices[0].parts(metrics)) as parts:  # type: ignore[type-var]
            async for part in parts:
                yield 0, part
        return
    queue: asyncio.Queue[tuple[int, Part | None]] = asyncio.Queue()

    async def read(index: int, choice: Choice) -> None:
        async for part in choice.parts(metrics):
            queue.put_nowait((index, part))

    tasks = [asyncio.ensure_future(read(index, choice)) for index, choice in enumerate(choices)]
    for index, task in enumerate(tasks):
        task.add_done_callback(lambda _, index=index: queue.put_nowait((index, None)))  # type: ignore[misc]
    going = len(tasks)
    try:
        while going:
            index, came = await queue.get()
            if came is not None:
                yield index, came
                continue
            going -= 1
            if (error := tasks[index].exception()) is not None:
                raise error
    finally:
        for task, choice in zip(tasks, choices, strict=True):
            task.cancel()
            choice.cancel()  # a task that has not begun does not
        await asyncio.gather(*tasks, return_exceptions=True)
