"""When a request ends before its answer is complete: its client went away, its time is over, or the server stops."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answer import Answer
from .errors import ApiError
from .metrics import Metrics
from .shutdown import Draining

CANCEL_SECONDS = 10.0  # that a route may take to clean up

logger = logging.getLogger(__name__)


class Lifetime:
    """Middleware: runs a request as a task, which is cancelled when the request must end.

    After ``seconds`` the client gets a 504, or in a stream of events that has begun, an event with the error, and the
    stream's proper end. Where an answer of another kind has begun, the connection is closed. Expects a body that comes
    in one message, so that only the client's leaving can follow it.
    """

    def __init__(self, app: ASGIApp, seconds: float, metrics: Metrics, draining: Draining) -> None:
        self.app = app
        self.seconds = seconds
        self.metrics = metrics
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        loop = asyncio.get_running_loop()
        answer = Answer(scope, receive, send)
        # The error that ends the request; None if nobody is there to be told.
        ended: asyncio.Future[ApiError | None] = loop.create_future()

        def end(error: ApiError | None) -> None:
            if not ended.done():
                ended.set_result(error)

        messages: asyncio.Queue[Message] = asyncio.Queue()

        async def listen() -> None:
            while True:
                message = await receive()
                messages.put_nowait(message)
                if message["type"] == "http.disconnect":
                    return end(None)

        listener = asyncio.create_task(listen())
        task = asyncio.ensure_future(self.app(scope, messages.get, answer.send))
        timer = loop.call_later(self.seconds, end, self._time_over())
        self.draining.enders.add(end)
        try:
            awaited: list[asyncio.Future[Any]] = [task, ended]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            # A complete answer ends the client's side too; what the route does after it may go on.
            if task.done() or answer.complete:
                await task
            else:
                await _cancel(task)
                await self._finish(ended.result(), answer, scope)
        finally:
            self.draining.enders.discard(end)
            timer.cancel()
            listener.cancel()
            task.cancel()

    def _time_over(self) -> ApiError:
        message = f"the request took longer than {self.seconds:g} seconds; ask for fewer tokens, or try again later"
        return ApiError(504, message, code="request_timeout")

    async def _finish(self, error: ApiError | None, answer: Answer, scope: Scope) -> None:
        """Tell the client why, as far as its answer has not gone."""
        record = scope.get("state", {}).get("record")
        if error is None:
            outcome = "client_gone"
            self.metrics.cancelled()
        elif error.status == 504:
            outcome = "time_limit"
            self.metrics.timed_out()
        else:
            outcome = "shutdown"
        if record is not None:
            record.outcome = outcome
        if error is not None:
            await answer.fail(error)  # one that cannot be told is cut off: its server closes the connection


async def _cancel(task: asyncio.Future[None]) -> None:
    """Cancel a route, and wait until it is gone. What it raises on its way is logged."""
    task.cancel()
    await asyncio.wait({task}, timeout=CANCEL_SECONDS)
    if not task.done():
        logger.error("a cancelled request did not end within %g seconds", CANCEL_SECONDS)
    elif not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a request failed while it was cancelled", exc_info=error)
