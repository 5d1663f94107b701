"""Limits on requests: how large a body is and how long it takes to come, and how many run and wait at a time."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .metrics import Metrics
from .routes import needs_model

MIB = 2**20
# Of a body that is too large, this much is read before the answer, as many clients only listen once they have sent all.
DISCARDED_BYTES = 16 * MIB
DISCARD_SECONDS = 2.0
LONGEST_RETRY = 300  # seconds


@dataclass(frozen=True)
class Limits:
    """What a server takes at most.

    ``max_body_bytes`` of one request, ``max_bodies_bytes`` of all that run; ``body_seconds`` for a body to arrive.
    ``max_running`` requests take a model's time at once, ``max_queue`` wait for that. ``request_seconds`` for a request
    from the end of its body on, the wait included. ``max_connections`` at once; ``head_seconds`` and ``max_head_bytes``
    for a request's head. ``write_seconds``: how long a client may take to read what fills the socket's buffer of
    ``send_buffer_bytes`` (None: the system's).
    """

    max_body_bytes: int = 8 * MIB
    max_bodies_bytes: int = 256 * MIB
    body_seconds: float = 30.0
    max_running: int = 256
    max_queue: int = 512
    request_seconds: float = 600.0
    max_connections: int = 2048
    head_seconds: float = 10.0
    max_head_bytes: int = 64 * 1024
    write_seconds: float = 30.0
    send_buffer_bytes: int | None = 256 * 1024


class BodyLimit:
    """Middleware: reads a request's body whole, and passes it on as one message.

    413 for a body that is too large, whether its length was stated or not; 408 for one that takes too long; 429 while
    the bodies of all running requests are too large together.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self._held = 0  # bytes, of all requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body, held = bytearray(), 0
        try:
            try:
                complete = await self._read_in_time(scope, receive, body)
            except ApiError as error:
                answer = error.response()
                answer.headers["connection"] = "close"  # what is left of the body is no request
                return await answer(scope, receive, send)
            if complete:
                held, replayed = len(body), _replay(bytes(body), receive)
                body.clear()
                await self.app(scope, replayed, send)
        finally:
            self._held -= held + len(body)

    async def _read_in_time(self, scope: Scope, receive: Receive, body: bytearray) -> bool:
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                return await self._read(scope, receive, body)
        except TimeoutError:
            message = f"the request's body did not arrive within {self.limits.body_seconds:g} seconds; send it at once"
            raise ApiError(408, message, code="body_timeout") from None

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> bool:
        """Append the body to ``body``; returns whether all of it came, not the end of the connection."""
        headers = Headers(scope=scope)
        stated = headers.get("content-length", "")
        if not stated and "transfer-encoding" not in headers:
            return True
        waits = headers.get("expect", "").lower() == "100-continue"
        if stated.isdecimal() and int(stated) > self.limits.max_body_bytes:
            if not waits:
                await _discard(receive)
            raise self._too_large()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return False
            part = message.get("body", b"")
            if len(body) + len(part) > self.limits.max_body_bytes:
                if message.get("more_body", False):
                    await _discard(receive)
                raise self._too_large()
            if self._held + len(part) > self.limits.max_bodies_bytes:
                full = "the server holds as much as it can of other requests; try again in a second"
                raise ApiError(429, full, code="bodies_too_large", headers={"Retry-After": "1"})
            body += part
            self._held += len(part)
            if not message.get("more_body", False):
                return True

    def _too_large(self) -> ApiError:
        message = f"the request's body is larger than the {self.limits.max_body_bytes} bytes that are taken; send less"
        return ApiError(413, message, code="body_too_large")


async def _discard(receive: Receive) -> None:
    """Read on, some bytes and some time, so that a client which is still sending hears the answer."""
    left = DISCARDED_BYTES
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        pass


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body, and then what comes after it."""
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replayed() -> Message:
        nonlocal message
        if message is None:
            return await receive()
        first, message = message, None
        return first

    return replayed


class RequestQueue:
    """Middleware: ``max_running`` requests of models' routes run, ``max_queue`` wait in order, others get a 429.

    ``Retry-After`` is how long the queue will take, going by how long requests have taken of late.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self.app = app
        self.limits = limits
        self.metrics = metrics
        self._slots = asyncio.Semaphore(limits.max_running)
        self._waiting = 0
        self._seconds = 1.0  # what a request takes: a moving average

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not needs_model(scope):
            return await self.app(scope, receive, send)
        if self._slots.locked():
            if self._waiting >= self.limits.max_queue:
                return await self._refusal().response()(scope, receive, send)
            await self._wait()
        else:
            await self._slots.acquire()
        begin = time.monotonic()
        self.metrics.running(1)
        try:
            await self.app(scope, receive, send)
        finally:
            self._slots.release()
            self.metrics.running(-1)
            self._seconds += 0.1 * (time.monotonic() - begin - self._seconds)

    async def _wait(self) -> None:
        self._waiting += 1
        self.metrics.waiting(1)
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
            self.metrics.waiting(-1)

    def retry_seconds(self) -> int:
        """When a place in the queue should be free: whole seconds, at least one."""
        return max(1, min(LONGEST_RETRY, math.ceil(self._seconds * (self._waiting + 1) / self.limits.max_running)))

    def _refusal(self) -> ApiError:
        seconds = self.retry_seconds()
        message = f"the queue is full with {self._waiting} requests; try again in {seconds} seconds"
        return ApiError(429, message, code="queue_full", headers={"Retry-After": str(seconds)})
