"""Answers on their way to a client: how far each is, and how what ends it early is told."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from .errors import ApiError
from .routes import path_of

# Where in a request's state its route says how its stream tells of an error.
ERROR_EVENT = "error_event"


class Answer:
    """Passes an answer on, and knows how far it is: ``started``; ``events``, whether it is a stream of these;
    ``complete``."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._parts = 0
        self.started = self.events = self.complete = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.started = True
            kind = Headers(raw=list(message.get("headers", []))).get("content-type", "")
            self.events = kind.startswith("text/event-stream")
        elif message["type"] == "http.response.body":
            self._parts += 1
            if not message.get("more_body", False):
                self.complete = True
        await self._send(message)

    async def fail(self, error: ApiError) -> bool:
        """Tell the client, in what of the answer it has not got: all of it, or the last event of a stream.

        False where neither can be, so that it must see that its answer was cut off.
        """
        if not self.started:
            await error.response()(self._scope, self._receive, self.send)
        elif self.complete or not self.events:
            return False
        else:
            event = error_event(self._scope, error, self._parts)
            await self.send({"type": "http.response.body", "body": event, "more_body": True})
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        return True


def error_event(scope: Scope, error: ApiError, number: int = 0) -> bytes:
    """The last event of a stream that fails, as clients of its route know it.

    ``number``: of this event, where the route counts them, and cannot be asked.
    """
    made: Callable[[ApiError], bytes] | None = scope.get("state", {}).get(ERROR_EVENT)
    if made is not None:
        return made(error)
    content = error.body()
    if path_of(scope) == "/v1/responses":  # whose events have a type
        content = {**content["error"], "type": "error", "sequence_number": number}
        return b"event: error\ndata: %s\n\n" % json.dumps(content).encode()
    return b"data: %s\n\n" % json.dumps(content).encode()
