"""The HTTP process's side of the engine process: texts and embeddings as asyncio knows them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import Error
from ..llm.grammar import Grammar
from ..llm.sample import SamplingParams
from .errors import ApiError
from .link import LoopLink, start_linked
from .settings import EngineSettings
from .wire import Accepted, AskLoad, Came, Cancel, Embed, Embedded, Load, Ready, Refused, Submit

GRACE_SECONDS = 10  # that an engine process gets to end
LONGEST_PAUSE = 60  # seconds between two tries to start a process that fails

logger = logging.getLogger(__name__)

ClientState = Literal["starting", "up", "down", "closed"]


class EngineText:
    """A text that the engine continues, for one reader."""

    def __init__(self, id: int, client: EngineClient, loop: asyncio.AbstractEventLoop) -> None:
        self.id = id
        self._client, self._loop = client, loop
        self._arrived: Came | None = None
        self._error: ApiError | None = None
        self._accepted = False
        self._ended = False  # for the engine
        self._waiting: asyncio.Future[None] | None = None

    async def accepted(self) -> None:
        """Wait until the engine has taken the text in. Raises ApiError if it has not."""
        while not self._accepted and self._error is None and self._arrived is None:
            await self._wait()
        if self._error is not None and not self._accepted:
            raise self._error

    async def next(self) -> Came:
        """All that came since the last call; waits for something. Raises the ApiError that ended the text."""
        while self._arrived is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        arrived, self._arrived = self._arrived, None
        return arrived

    def cancel(self) -> None:
        """End the text, if it goes on."""
        if not self._ended:
            self._ended = True
            self._client.forget(self)

    async def _wait(self) -> None:
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def deliver_token(self, token: int) -> None:
        """A further token."""
        if self._arrived is None:
            self._arrived = Came(self.id, [token])
            self._wake()
        else:
            self._arrived.tokens.append(token)

    def deliver(self, message: Came | Accepted | Refused) -> None:
        """What else the engine process has sent about this text."""
        match message:
            case Came():
                self._ended = message.end is not None
                if self._arrived is None:
                    self._arrived = message
                else:
                    _join(self._arrived, message)
            case Accepted():
                self._accepted = True
            case Refused():
                self.fail(_api_error(message))
                return
        self._wake()

    def fail(self, error: ApiError) -> None:
        """The text ends with an error."""
        self._ended, self._error = True, error
        self._wake()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def _join(first: Came, second: Came) -> None:
    first.tokens += second.tokens
    if second.logprobs is not None:
        first.logprobs = [*(first.logprobs or ()), *second.logprobs]
    if second.cached_tokens is not None:
        first.cached_tokens = second.cached_tokens
    if second.prompt_logprobs is not None:
        first.prompt_logprobs = [*(first.prompt_logprobs or ()), *second.prompt_logprobs]
    first.end = second.end


def _api_error(refused: Refused) -> ApiError:
    return ApiError(400 if refused.at_fault else 500, refused.message)


def _gone() -> ApiError:
    return ApiError(503, "the engine has stopped; it is being started again", headers={"Retry-After": "5"})


def _closed() -> ApiError:
    return ApiError(503, "the server is shutting down")


class EngineClient:
    """Starts the engine process, talks with it, and starts it again if it ends by itself.

    Belongs to the event loop in which it is started. ``ready``: what was loaded.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._ids = count(1)
        self._texts: dict[int, EngineText] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._link: LoopLink | None = None
        self._starting: asyncio.Future[Ready] | None = None
        self._restart: asyncio.Task[None] | None = None
        self._ready: Ready | None = None
        self.state: ClientState = "starting"

    @property
    def ready(self) -> Ready:
        """What the engine process has loaded."""
        assert self._ready is not None, "the engine is not started yet"
        return self._ready

    async def start(self) -> None:
        """Start the process, and wait until it has loaded its programs. Raises Error if it cannot."""
        self._loop = asyncio.get_running_loop()
        self._starting = self._loop.create_future()
        process, connected = start_linked([sys.executable, "-m", f"{__package__}.engine_process"])
        self._process = process
        try:
            self._link = await LoopLink.open(connected, self._deliver, lambda: self._ended(process))
            self._link.send(self._settings)
            await self._starting
        except BaseException:
            process.kill()
            await self._end_process()
            raise

    def submit(
        self, tokens: Sequence[int], params: SamplingParams, ends: Collection[int], grammar: Grammar | None = None
    ) -> EngineText:
        """Continue a prompt. ``ends``: the tokens that end it. Raises ApiError while there is no engine."""
        link = self._open_link()
        text = EngineText(next(self._ids), self, self._loop)
        self._texts[text.id] = text
        link.send(Submit(text.id, tokens, params, frozenset(ends), grammar))
        return text

    def forget(self, text: EngineText) -> None:
        """Nobody reads a text any more."""
        self._texts.pop(text.id, None)
        if self._link is not None:
            self._link.send(Cancel(text.id))

    async def embed(self, texts: Sequence[Sequence[int]], *, truncate: bool = False) -> NDArray[np.float32]:
        """Embeddings [n, dim] of token ids, of which long ones may be cut. Raises ApiError."""
        assert self.ready.encoder is not None
        answer = await self._ask(Embed(next(self._ids), texts, truncate))
        assert isinstance(answer, Embedded)
        return np.frombuffer(answer.embeddings, "<f4").reshape(len(texts), self.ready.encoder.dim)

    async def load(self) -> Load:
        """How busy the engine is. Raises ApiError while there is none."""
        answer = await self._ask(AskLoad(next(self._ids)))
        assert isinstance(answer, Load)
        return answer

    async def _ask(self, message: Any) -> Any:
        link = self._open_link()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._answers[message.id] = future
        link.send(message)
        try:
            return await future
        except asyncio.CancelledError:
            link.send(Cancel(message.id))
            raise
        finally:
            self._answers.pop(message.id, None)

    def _open_link(self) -> LoopLink:
        if self.state != "up" or self._link is None:
            raise _gone()
        return self._link

    def _deliver(self, messages: list[Any]) -> None:
        for message in messages:
            if type(message) is tuple:
                if (text := self._texts.get(message[0])) is not None:
                    text.deliver_token(message[1])
            elif isinstance(message, Ready) or message.id == 0:
                if self._starting is not None and not self._starting.done():
                    if isinstance(message, Ready):
                        # At once, so that an end which follows in the same turn of the loop is not missed.
                        self._ready, self.state = message, "up"
                        self._starting.set_result(message)
                    else:
                        self._starting.set_exception(Error(message.message))
            elif (text := self._texts.get(message.id)) is not None:
                text.deliver(message)
                if text.ended:
                    self._texts.pop(message.id, None)
            elif (answer := self._answers.get(message.id)) is not None and not answer.done():
                if isinstance(message, Refused):
                    answer.set_exception(_api_error(message))
                else:
                    answer.set_result(message)

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        """The process is gone, or the link to it."""
        if process is not self._process:
            return
        if self._starting is not None and not self._starting.done():
            self._starting.set_exception(Error("the engine process ended while it was loading"))
            return
        if self.state != "up":  # closed, or on its way down or up: who waits for that has heard of it
            return
        self.state = "down"
        logger.error("the engine process has ended, and is started again")
        for text in self._texts.values():
            text.fail(_gone())
        self._texts.clear()
        self._fail_answers(_gone)
        if self._restart is None or self._restart.done():
            self._restart = self._loop.create_task(self._start_again())

    async def _start_again(self) -> None:
        pause = 1.0
        while self.state == "down":
            await self._end_process()
            try:
                await self.start()
            except Exception as error:  # whatever it is, the server goes on
                logger.error("the engine cannot be started; the next try is in %g seconds: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _fail_answers(self, error: Callable[[], ApiError]) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error())

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        link, self._link = self._link, None
        if link is not None:
            link.close()
        if process is not None:
            try:
                await asyncio.to_thread(process.wait, GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)
        if link is not None:
            link.abort()

    async def close(self) -> None:
        """End the process. Texts and questions that go on end with an error."""
        self.state = "closed"
        if self._restart is not None:
            self._restart.cancel()
            with suppress(asyncio.CancelledError):
                await self._restart
        for text in self._texts.values():
            text.fail(_closed())
        self._texts.clear()
        self._fail_answers(_closed)
        await self._end_process()
