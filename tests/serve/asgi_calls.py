"""Requests to ASGI applications without a server, and applications to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body that it gets."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Stream:
    """An application that sends events until it is cancelled, and says when that was."""

    event: bytes = b"data: {}\n\n"
    pause: float = 0.0
    content_type: bytes = b"text/event-stream; charset=utf-8"
    count: int | None = None
    sent: int = 0
    running: int = 0
    cancelled: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        try:
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.content_type)]}
            )
            while self.count is None or self.sent < self.count:
                await send({"type": "http.response.body", "body": self.event, "more_body": True})
                self.sent += 1
                await asyncio.sleep(self.pause)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


@dataclass
class Never:
    """An application that answers only once it is told to."""

    begun: int = 0
    cancelled: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await echo(scope, receive, send)


def client(app: ASGIApp, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", **options)


def http_scope(method: str = "POST", path: str = "/v1/completions", headers: Mapping[str, str] | None = None) -> Scope:
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": raw}


@dataclass
class Exchange:
    """What an application sends for a list of messages, after which nothing more comes."""

    messages: Iterable[Message] = ({"type": "http.request", "body": b"", "more_body": False},)
    sent: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = list(self.messages)

    async def receive(self) -> Message:
        if self._left:
            return self._left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])
