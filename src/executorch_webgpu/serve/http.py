"""How requests are read and answers are written."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .. import __version__
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


class _EventStream(EventSourceResponse):
    """Ends ``choices`` with itself: a generator that nobody has begun to read, or read far enough, does not."""

    choices: Sequence[Choice] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for choice in self.choices:
                choice.cancel()


def event_stream(events: AsyncIterator[bytes], choices: Sequence[Choice], metrics: Metrics) -> Response:
    """A stream of events about ``choices``, which end with it.

    What goes wrong after it began is an event with an error, the last one.
    """
    response = _EventStream(_told(events, metrics), ping=PING_SECONDS, sep="\n")
    response.choices = choices
    del response.headers["connection"]  # which is for the connection to say, and may be "close"
    return response


async def _told(events: AsyncIterator[bytes], metrics: Metrics) -> AsyncIterator[bytes]:
    async with aclosing(events) as told:  # type: ignore[type-var]  # generators, which can be closed
        try:
            async for each in told:
                yield each
        except ApiError as error:
            if error.status >= 500:
                metrics.failed()
            yield event(error.body())
        except Exception:
            metrics.failed()
            logger.exception("a stream failed in a way that is nobody's fault but the server's")
            yield event(ApiError(500, "the server failed; its log says more", code="internal_error").body())


def new_id(kind: str) -> str:
    """A fresh id, such as "chatcmpl-..."."""
    return f"{kind}-{secrets.token_hex(12)}"
