"""How a server stops: what runs may finish, what comes meanwhile is told to come back, and then all of it ends.

The first SIGTERM or SIGINT begins to drain. Connections are still taken, so that a balancer which asks ``/health``
learns of it, and other requests get a 503 with ``Retry-After``, not a refused connection. When nothing runs any more,
or after ``grace_seconds``, what is left ends: with an event that says so in a stream, with a 503 before that. A second
signal ends it at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import ApiError
from .routes import path_of

RETRY_SECONDS = 5  # about what another replica, or a restart, takes


class Draining:
    """Whether a server is about to stop, and what still runs in it.

    ``enders`` are called to end each running request. Signal handlers may call ``begin``.
    """

    def __init__(self, grace_seconds: float = 30.0) -> None:
        self.grace_seconds = grace_seconds
        self.active = 0
        self.enders: set[Callable[[ApiError], None]] = set()
        self._deadline: float | None = None

    @property
    def begun(self) -> bool:
        return self._deadline is not None

    @property
    def done(self) -> bool:
        """Whether the server can stop: nothing runs, or the time is over."""
        return self._deadline is not None and (self.active == 0 or time.monotonic() >= self._deadline)

    def begin(self, grace_seconds: float | None = None) -> None:
        """Stop taking requests; those that run have ``grace_seconds`` (by default those of the constructor)."""
        grace = self.grace_seconds if grace_seconds is None else grace_seconds
        deadline = time.monotonic() + grace
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def end_requests(self) -> None:
        """End what runs, with an error that says why."""
        for end in list(self.enders):
            end(refusal())


def refusal() -> ApiError:
    """What a request is told that a server about to stop cannot take, or finish."""
    message = f"the server is about to stop; try again in {RETRY_SECONDS} seconds, or at another replica"
    return ApiError(503, message, code="shutting_down", headers={"Retry-After": str(RETRY_SECONDS)})


class DrainingRequests:
    """Middleware: counts what runs; while the server drains, ``/health`` says so, and only ``/metrics`` is answered."""

    def __init__(self, app: ASGIApp, draining: Draining) -> None:
        self.app = app
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or path_of(scope) == "/metrics":
            return await self.app(scope, receive, send)
        if self.draining.begun:
            answer = _health() if path_of(scope) == "/health" else refusal().response()
            answer.headers["connection"] = "close"
            return await answer(scope, receive, send)
        self.draining.active += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.draining.active -= 1


def _health() -> Response:
    content = json.dumps({"status": "draining"})
    return Response(content, 503, {"Retry-After": str(RETRY_SECONDS)}, media_type="application/json")


class DrainingServer(uvicorn.Server):
    """uvicorn, which drains at the first signal, ends all requests at the second, and leaves at the third."""

    def __init__(self, config: uvicorn.Config, draining: Draining) -> None:
        super().__init__(config)
        self.draining = draining

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        else:
            self.draining.begin(0 if self.draining.begun else None)

    async def on_tick(self, counter: int) -> bool:
        if self.draining.done:
            self.draining.end_requests()
            self.should_exit = True
        return await super().on_tick(counter)
