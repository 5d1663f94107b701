"""Connections of clients that are slow, vanish, or are too many. uvicorn bounds none of that for itself.

What is bounded: open connections; the time and the bytes until a request's head is complete; the time that a client
takes to read what was written. All answers that a client gets here have OpenAI's shape.
"""

from __future__ import annotations

import asyncio
import functools
import math
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import ApiError
from .limits import Limits
from .metrics import Metrics

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

# Connections above the bound that get a 503 once they have asked; those above these are closed unheard.
ROOM_TO_REFUSE = 64
WRITE_BUFFER = 16 * 1024  # bytes that wait for the socket before a stream waits for its client
KEEPALIVE_PROBES = 3
FILES_BESIDE = 128  # open files besides connections: the program, the tokenizer, pipes


def connection_protocol(limits: Limits, metrics: Metrics) -> type[asyncio.Protocol]:
    """What ``uvicorn.Config(http=...)`` takes."""
    return cast("type[asyncio.Protocol]", functools.partial(Connection, limits=limits, metrics=metrics))


def allow_open_files(connections: int) -> int:
    """Raise this process's soft limit of open files, as far as it may; returns how many connections that allows."""
    try:
        import resource  # not on Windows, which has no such limit
    except ImportError:
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + ROOM_TO_REFUSE + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, soft - ROOM_TO_REFUSE - FILES_BESIDE))


def _bound_socket(connected: socket.socket, limits: Limits) -> None:
    """Have the kernel say when a client stops to read, or is gone without a word: cable pulled, machine off."""
    if limits.send_buffer_bytes is not None:
        # Else megabytes of a stream wait in the kernel before anyone knows that its client does not read.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seconds = max(1, math.ceil(limits.write_seconds))
    options = {
        "TCP_KEEPIDLE": seconds,  # of silence, before the client is asked whether it is there
        "TCP_KEEPINTVL": max(1, seconds // KEEPALIVE_PROBES),
        "TCP_KEEPCNT": KEEPALIVE_PROBES,
        "TCP_USER_TIMEOUT": seconds * 1000,  # that what was sent may go unanswered
    }
    for name, value in options.items():
        if (option := getattr(socket, name, None)) is not None:  # not every system has each
            connected.setsockopt(socket.IPPROTO_TCP, option, value)


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with bounds."""

    def __init__(self, *args: Any, limits: Limits, metrics: Metrics, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = limits
        self.metrics = metrics
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._head_bytes: int | None = 0  # of a head that is not complete; None within a body
        self._closing = False
        self._cycles: list[RequestResponseCycle] = []  # requests that are not answered yet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.metrics.connected(1)
        if len(self.connections) > self.limits.max_connections + ROOM_TO_REFUSE:
            return self._drop("too_many")
        transport.set_write_buffer_limits(WRITE_BUFFER)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
            _bound_socket(connected, self.limits)
        self._head_timer = self.loop.call_later(self.limits.head_seconds, self._head_is_late)
        self._close_timer = self.loop.call_later(self.limits.write_seconds, self._look_at_close)

    def connection_lost(self, exc: Exception | None) -> None:
        self.metrics.connected(-1)
        for timer in (self._head_timer, self._write_timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        # uvicorn tells the latest request only, which in a pipeline is not the one that runs.
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self._cycles.clear()
        self.pipeline.clear()
        super().connection_lost(exc)

    # Heads

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # an answer that closes the connection is on its way
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(self.limits.head_seconds, self._head_is_late)
        super().data_received(data)
        if self._head_bytes is not None and self._head_bytes > self.limits.max_head_bytes:
            message = f"the request's head is larger than {self.limits.max_head_bytes} bytes; send fewer headers"
            self._refuse(ApiError(431, message, code="head_too_large"), "head_too_large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_bytes is None:
            self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        over = len(self.connections) > self.limits.max_connections
        if over and all(cycle.response_complete for cycle in self._cycles):
            message = f"all {self.limits.max_connections} connections are taken; try again in a few seconds"
            error = ApiError(503, message, code="too_many_connections", headers={"Retry-After": "5"})
            return self._refuse(error, "too_many")
        super().on_headers_complete()
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        self._cycles.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0  # the next request's
        self._stop_head_timer()
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._head_bytes is None and not self.transport.is_closing():
            # Refused before its body came, which is read and dropped, but not for ever.
            self._stop_head_timer()
            self._head_timer = self.loop.call_later(self.limits.body_seconds, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        if any(not cycle.response_complete for cycle in self._cycles):
            # Bytes behind a request that runs, such as the line end that some clients send after a body.
            self._head_timer = self.loop.call_later(self.limits.head_seconds, self._head_is_late)
            return
        if not self._head_bytes:  # nothing was asked
            self.metrics.dropped("idle")
            return self.transport.close()
        message = f"the request's head did not arrive within {self.limits.head_seconds:g} seconds; send it at once"
        self._refuse(ApiError(408, message, code="head_timeout"), "head_late")

    # Answers that no application gives

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for bytes that are no HTTP."""
        self._refuse(ApiError(400, "this is no valid HTTP/1.1 request", code="invalid_http"), "no_http")

    def _refuse(self, error: ApiError, reason: str) -> None:
        self.metrics.dropped(reason)
        in_body = self.cycle if self._head_bytes is None else None
        for cycle in self._cycles:
            if not cycle.response_complete and (cycle.response_started or cycle is not in_body):
                # What would be written is a part of another answer, or taken for one.
                return self.transport.close()
        answer = error.response()
        answer.headers["connection"] = "close"
        head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in answer.raw_headers)
        self.transport.write(head + lines + b"\r\n" + bytes(answer.body))
        self.transport.close()

    # Writes

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.write_seconds, self._drop, "slow_reader")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _look_at_close(self) -> None:
        """A connection that was closed ends once its last bytes are read; it has from one look to the next for that."""
        if self._closing:
            return self._drop("slow_reader")
        self._closing = self.transport.is_closing()
        self._close_timer = self.loop.call_later(self.limits.write_seconds, self._look_at_close)

    def _drop(self, reason: str) -> None:
        """End the connection with what it has not read; the request behind it hears of that, and is cancelled."""
        self.metrics.dropped(reason)
        self.transport.abort()
