"""The tokens of one text of an engine, as they come: for threads and for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

StreamEnd = Literal["eos", "length", "context", "cancelled"]


@dataclass
class StreamTimes:
    """Seconds on one clock (``time.perf_counter``): when a text was submitted, and when each of its ``tokens`` came."""

    submitted: float
    tokens: list[float] = field(default_factory=list)

    @property
    def first_token(self) -> float | None:
        """When the first token came; None before that."""
        return self.tokens[0] if self.tokens else None

    @property
    def last_token(self) -> float | None:
        """When the last token came so far; None before the first."""
        return self.tokens[-1] if self.tokens else None


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of probabilities, of the model's logits as they were: of a token, and of the likeliest ones.

    ``likeliest``: tokens with theirs, as many as ``SamplingParams.logprobs`` asks for, from the likeliest on.
    """

    logprob: float
    likeliest: tuple[tuple[int, float], ...]


class Mailbox:
    """Where an engine leaves tokens, and how a reader waits for them. Any thread may call any method."""

    def __init__(self) -> None:
        self.times = StreamTimes(perf_counter())
        self.cancelled = False
        self.end: StreamEnd | None = None
        self.error: BaseException | None = None
        self.logprobs: list[TokenLogprobs] = []  # of the tokens that were put, where they are asked for
        self.prompt_logprobs: list[TokenLogprobs] = []  # of the prompt's tokens but the first, likewise
        self.cached_tokens = 0
        self._changed = threading.Condition()
        self._tokens: deque[int] = deque()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    @property
    def ended(self) -> bool:
        """Whether no token will come any more."""
        return self.end is not None or self.error is not None

    def put(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        """A new token; of a text that has ended it is dropped."""
        with self._changed:
            if self.ended:
                return
            self.times.tokens.append(perf_counter())
            if logprobs is not None:
                self.logprobs.append(logprobs)
            self._tokens.append(token)
            self._wake()

    def finish(self, end: StreamEnd | None, error: BaseException | None = None) -> None:
        """No token comes any more. Only the first end counts."""
        with self._changed:
            if not self.ended:
                self.end, self.error = end, error
                self._wake()

    def take(self, timeout: float | None = None) -> int | None:
        """The next token, or None at the end. Waits. Raises the error that ended the text, TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._tokens or self.ended, timeout):
                raise TimeoutError(f"no token came within {timeout} s")
            return self._next()

    async def take_async(self) -> int | None:
        """``take`` for asyncio."""
        while True:
            with self._changed:
                if self._tokens or self.ended:
                    return self._next()
                loop = asyncio.get_running_loop()
                future = loop.create_future()
                waiting = loop, future
                self._waiting.append(waiting)
            try:
                await future
            finally:  # who gives up waits no more
                with self._changed:
                    if waiting in self._waiting:
                        self._waiting.remove(waiting)

    def _next(self) -> int | None:
        if self._tokens:
            return self._tokens.popleft()
        if self.error is not None:
            raise self.error
        return None

    def _wake(self) -> None:
        self._changed.notify_all()
        for loop, future in self._waiting:
            with suppress(RuntimeError):  # a loop that is closed, whose tasks wait for nothing any more
                loop.call_soon_threadsafe(_set, future)
        self._waiting.clear()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Stream:
    """Iterates over the tokens of a text, in a thread (``for``) or in a task (``async for``).

    One reader takes each token; the text goes on whether or not somebody reads. A stream that is cancelled, or that
    nobody holds any more, ends within a step, and gives its pages back. ``engine`` lives as long as this.
    """

    def __init__(self, mailbox: Mailbox, engine: object) -> None:
        self._mailbox, self._engine = mailbox, engine

    @property
    def finish_reason(self) -> StreamEnd | None:
        """Why the text ended: an end token, ``max_new_tokens``, a full context, ``cancel``. None while it goes on."""
        return self._mailbox.end

    @property
    def times(self) -> StreamTimes:
        """When it was submitted, and when tokens came."""
        return self._mailbox.times

    @property
    def logprobs(self) -> Sequence[TokenLogprobs]:
        """Of each token that came so far, read or not; none unless ``SamplingParams.logprobs`` asks for them."""
        return self._mailbox.logprobs

    @property
    def prompt_logprobs(self) -> Sequence[TokenLogprobs]:
        """Of each token of the prompt but the first, once a new token came; where ``SamplingParams`` asks for them."""
        return self._mailbox.prompt_logprobs

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were not computed, as texts before it began alike; known with the first token."""
        return self._mailbox.cached_tokens

    def cancel(self) -> None:
        """End the text. Tokens that came before may still be read. A second call does nothing."""
        self._mailbox.cancelled = True
        self._mailbox.finish("cancelled")

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        """The next token; waits for it. Raises the error that ended the text, if one did."""
        token = self._mailbox.take()
        if token is None:
            raise StopIteration
        return token

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        token = await self._mailbox.take_async()
        if token is None:
            raise StopAsyncIteration
        return token

    def __del__(self) -> None:
        self._mailbox.cancelled = True
