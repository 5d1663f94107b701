"""How requests are read and answers are written."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .. import __version__
from .answer import error_event
from .choice import Choice
from .errors import ApiError
from .json_body import check_content_type, parse_object
from .metrics import Metrics
from .requests import RequestBody, parse

INLINE_BYTES = 128 * 1024  # of a body that is parsed at once
PING_SECONDS = 15  # after which a silent stream shows that it is alive
# What made an answer, for clients that ask whether two came from the same.
FINGERPRINT = {"system_fingerprint": f"executorch-webgpu-{__version__}"}
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"  # a comment

Body = TypeVar("Body", bound=RequestBody)

logger = logging.getLogger(__name__)


async def read(request: Request, kind: type[Body]) -> Body:
    """The body of a request. Raises ApiError for what is no such body."""
    check_content_type(request.headers)
    body = await request.body()
    # Others go on, while a large one is parsed.
    fields = parse_object(body) if len(body) < INLINE_BYTES else await asyncio.to_thread(parse_object, body)
    return parse(fields, kind)


def answer(content: Any) -> Response:
    """A JSON answer."""
    return Response(to_json(content), media_type="application/json")


def to_json(content: Any) -> bytes:
    """JSON as UTF-8. A lone surrogate, which only a client can have sent, is escaped."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, separators=(",", ":")).encode()


def event(content: Any, name: str | None = None) -> bytes:
    """A server-sent event."""
    head = b"" if name is None else b"event: %s\n" % name.encode()
    return head + b"data: %s\n\n" % to_json(content)


class EventStream(Response):
    """A stream of events about ``choices``, which end with it.

    What goes wrong after it began is an event with an error, the last one. While nothing comes, a comment shows every
    ``PING_SECONDS`` that the stream is alive. Whether the client leaves is for ``Lifetime`` to see, which cancels this.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], choices: Sequence[Choice], metrics: Metrics) -> None:
        self._events, self._choices, self._metrics = events, choices, metrics
        self._sent = 0.0  # when the last bytes were, by the loop's clock
        self.status_code, self.background = 200, None
        # Nobody keeps it, and no proxy (nginx, by this name) holds it back.
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        pings = None
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._sent = loop.time()
            pings = asyncio.ensure_future(self._ping(send))
            try:
                async with aclosing(self._events) as events:  # type: ignore[type-var]  # generators, which can be closed
                    async for each in events:
                        self._sent = loop.time()
                        await send({"type": "http.response.body", "body": each, "more_body": True})
            except Exception as error:
                event = error_event(scope, self._told(error, scope))
                await send({"type": "http.response.body", "body": event, "more_body": True})
            pings.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if pings is not None:
                pings.cancel()
            # A generator that nobody has begun to read, or read far enough, does not.
            for choice in self._choices:
                choice.cancel()

    async def _ping(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = self._sent + PING_SECONDS
            if loop.time() >= due:
                self._sent = loop.time()
                await send({"type": "http.response.body", "body": PING, "more_body": True})
            else:
                await asyncio.sleep(due - loop.time())

    def _told(self, error: Exception, scope: Scope) -> ApiError:
        """What the client is told of an error."""
        if (record := scope.get("state", {}).get("record")) is not None:
            record.outcome = "error"
        if not isinstance(error, ApiError) or error.status >= 500:
            self._metrics.failed()
        if isinstance(error, ApiError):
            return error
        logger.error("a stream failed in a way that is nobody's fault but the server's", exc_info=error)
        return ApiError(500, "the server failed; its log says more", code="internal_error")


def new_id(kind: str) -> str:
    """A fresh id, such as "chatcmpl-..."."""
    return f"{kind}-{secrets.token_hex(12)}"
