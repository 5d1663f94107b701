"""An ASGI application behind the server's own connections, on loopback, and clients that speak bytes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from executorch_webgpu.serve.connections import connection_protocol
from executorch_webgpu.serve.limits import Limits
from executorch_webgpu.serve.metrics import Metrics
from executorch_webgpu.serve.shutdown import Draining, DrainingServer


@dataclass
class Running:
    """A server that runs in a thread."""

    port: int
    server: DrainingServer
    loop: asyncio.AbstractEventLoop
    metrics: Metrics

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        return client

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"etwebgpu_{name}", labels) or 0.0


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what another thread does; fails if it never does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


@contextmanager
def serving(
    app: ASGIApp, limits: Limits | None = None, metrics: Metrics | None = None, draining: Draining | None = None
) -> Iterator[Running]:
    """A server on a free port, stopped at the end, which nothing outlives."""
    metrics = metrics or Metrics()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=connection_protocol(limits or Limits(), metrics),
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=2,
    )
    server = DrainingServer(config, draining or Draining(grace_seconds=0))
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: uvicorn._compat.asyncio_run(run(), loop_factory=config.get_loop_factory()))
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        yield Running(listener.getsockname()[1], server, loops[0], metrics)
    finally:
        server.draining.begin(0)
        thread.join(20)
    assert not thread.is_alive()
    assert not server.server_state.connections


def read_all(client: socket.socket) -> bytes:
    """What comes until the connection ends, however it ends."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def answer_of(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer as it came from a connection that closed."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def error_of(body: bytes) -> dict[str, Any]:
    """The error object of an answer, which must have OpenAI's shape and one sentence."""
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and not error["message"].endswith(".") and "\n" not in error["message"]
    return error
