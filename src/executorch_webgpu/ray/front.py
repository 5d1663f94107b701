"""Where requests come in when Serve's own proxies take them: a front reads each one, and has a replica answer it.

Serve's proxies choose a replica before they have read a request's body, so they cannot know the prompt.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from starlette.types import ASGIApp, Receive, Scope, Send

from ..serve.answer import Answer
from ..serve.auth import ApiKeys, Authentication
from ..serve.errors import ApiError
from ..serve.limits import BodyLimit, Limits
from .asgi import asgi_function, lifespan_of_none
from .prefixes import prefix_blocks

logger = logging.getLogger(__name__)

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
        passed = Answer(scope, receive, send)
        left = asyncio.create_task(_disconnected(receive))
        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return await self._pass(self._replicas.remote(*request), passed, left)
                except (RayError, RayServeException) as error:
                    if passed.started or attempt == ATTEMPTS or not _is_lost(error):
                        return await self._fail(error, passed)
        finally:
            left.cancel()

    async def _fail(self, error: Exception, passed: Answer) -> None:
        """Tell the client; of an answer that is no stream and has begun, it sees that it was cut off."""
        told = _api_error(error)
        if told.status == 500:
            logger.error("a replica failed at a request, by a fault of the server", exc_info=error)
        if not await passed.fail(told):
            raise told

    async def _pass(self, answer: Any, passed: Answer, left: asyncio.Task[None]) -> None:
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


def _is_lost(error: Exception) -> bool:
    """Whether a replica is gone, or going, so that another one may do better. What a request does to one replica it
    does to each."""
    return not isinstance(error, RayTaskError | BackPressureError) or isinstance(error, RayActorError)


def _api_error(error: Exception) -> ApiError:
    if isinstance(error, RayTaskError) and not isinstance(error, RayActorError):
        return ApiError(500, "the server failed; its log says more", code="internal_error")
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
