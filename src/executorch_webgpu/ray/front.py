"""Where requests come in when Serve's own proxies take them: a front reads each one, and has a replica answer it.

Serve's proxies choose a replica before they have read a request's body, so they cannot know the prompt.
"""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..serve.auth import ApiKeys, Authentication
from ..serve.errors import ApiError
from ..serve.limits import BodyLimit, Limits
from .asgi import asgi_function, lifespan_of_none
from .prefixes import prefix_blocks

ATTEMPTS = 3  # to have a request answered, as long as nothing of an answer has come
# Of a scope, what can be sent to another process.
_SENT = (
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers"),
    *("client", "server"),
)


class Front:
    """The deployment that HTTP reaches; ``replicas`` is a handle of those that answer."""

    def __init__(self, replicas: Any, limits: Limits, api_key_file: str | None, open_metrics: bool) -> None:
        self._replicas = replicas.options(method_name="stream", stream=True)
        app: ASGIApp = BodyLimit(self._answer, limits)
        self._app = Authentication(app, keys=ApiKeys.load(api_key_file), open_metrics=open_metrics)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return asgi_function(self.answer)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] == "lifespan":
            return await lifespan_of_none(receive, send)
        await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        request = prefix_blocks(body), {key: scope[key] for key in _SENT if key in scope}, body
        passed = _Passed(send)
        left = asyncio.create_task(_disconnected(receive))
        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return await self._pass(self._replicas.remote(*request), passed, left)
                except (RayError, RayServeException) as error:
                    if passed.started or attempt == ATTEMPTS or isinstance(error, BackPressureError):
                        return await passed.fail(_api_error(error), scope, receive)
        finally:
            left.cancel()

    async def _pass(self, answer: Any, passed: _Passed, left: asyncio.Task[None]) -> None:
        """Send an answer on as it comes, unless the client has left."""
        coming: AsyncIterator[bytes] = aiter(answer)
        whole = False
        try:
            while True:
                following = asyncio.ensure_future(anext(coming, None))
                await asyncio.wait({following, left}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    return
                messages = await following
                if messages is None:
                    whole = True
                    return
                for message in pickle.loads(messages):
                    await passed.send(message)
        finally:
            if not whole:  # the client has left, or cannot be written to: nobody waits for what the replica computes
                answer.cancel()


class _Passed:
    """How far an answer has gone."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self._events = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._events = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message["headers"]
            )
        await self._send(message)

    async def fail(self, error: ApiError, scope: Scope, receive: Receive) -> None:
        """Tell the client, in what of the answer it has not got; of one that is no stream, it sees that it was cut."""
        if not self.started:
            await error.response()(scope, receive, self._send)
        elif self._events:
            event = f"data: {json.dumps(error.body())}\n\n".encode()
            await self._send({"type": "http.response.body", "body": event, "more_body": True})
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            raise error


def _api_error(error: Exception) -> ApiError:
    if isinstance(error, BackPressureError):
        return ApiError(
            429, "all replicas have as many requests as they take; try again later", headers={"Retry-After": "5"}
        )
    message = "the replica that was to answer has stopped; send the request again"
    return ApiError(503, message, code="replica_lost", headers={"Retry-After": "1"})


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
