"""A replica of the server: its ASGI application, whose engine process has the GPU that Ray gave to the replica."""

from __future__ import annotations

import asyncio
import logging.config
import pickle
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..llm.engine import PROMPT_LOOKUP
from ..models.library import find_program
from ..serve.access_log import log_config
from ..serve.app import build_app
from ..serve.auth import ApiKeys
from ..serve.limits import Limits
from ..serve.settings import ServerSettings
from ..serve.shutdown import Draining
from .adapters import assigned_adapter
from .asgi import asgi_function
from .prefix_router import AT, ONGOING, UP
from .prefixes import Blocks

STATS_SECONDS = 0.5  # between two looks at how many requests a replica has


@dataclass(frozen=True)
class ReplicaSettings:
    """What each replica is made with. Programs are named as commands name them, and found where a replica runs.

    ``api_key_file``: see ``ApiKeys.load``. ``network``: further arguments of ``serve.middleware.middlewares``.
    ``log_format``: of lines about requests, in the logs that Ray keeps of each replica's process.
    """

    server: ServerSettings
    limits: Limits = field(default_factory=Limits)
    api_key_file: str | None = None
    grace_seconds: float = 30.0
    network: Mapping[str, Any] = field(default_factory=dict)
    log_format: Literal["json", "text"] = "text"

    def app(self) -> Starlette:
        """The application, for the GPU that Ray gave to this process. Raises Error as ``assigned_adapter`` does."""
        engine = self.server.engine
        chosen = engine.engine, engine.adapter
        if engine.adapter is None:
            chosen = assigned_adapter(engine.engine)
        found = replace(
            engine,
            program=_path(engine.program),
            embeddings=_path(engine.embeddings),
            engine=chosen[0],
            adapter=chosen[1],
            speculate=engine.speculate if engine.speculate == PROMPT_LOOKUP else _path(engine.speculate),
        )
        return build_app(
            replace(self.server, engine=found),
            limits=self.limits,
            keys=ApiKeys.load(self.api_key_file),
            draining=Draining(self.grace_seconds),
            network=self.network,
        )


def _path(source: str | None) -> str | None:
    return None if source is None else str(find_program(source))


class Replica:
    """What all replicas have. Serve asks for their health, and routers for their load."""

    def __init__(self, settings: ReplicaSettings) -> None:
        logging.config.dictConfig(log_config(settings.log_format))
        self._app = settings.app()
        self._ongoing = 0

    def check_health(self) -> None:
        """Raises RuntimeError while the engine process is not up; Serve then replaces the replica."""
        if self._state not in ("up", "starting"):
            raise RuntimeError(f"the engine is {self._state}")

    def record_routing_stats(self) -> dict[str, float]:
        """How many requests this replica has, whether its engine is up, and when that was."""
        return {ONGOING: self._ongoing, UP: self._state == "up", AT: time.time()}

    @property
    def _state(self) -> str:
        state: str = self._app.state.server.client.state
        return state

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        self._ongoing += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._ongoing -= 1


class DirectReplica(Replica):
    """A replica that HTTP reaches directly, behind HAProxy. Serve runs its application, and that one's lifespan."""

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return asgi_function(self.answer)


class HandledReplica(Replica):
    """A replica that gets requests from a ``Front``, through a handle."""

    async def __init__(self, settings: ReplicaSettings) -> None:  # type: ignore[misc]  # Serve awaits it
        super().__init__(settings)
        self._lifespan = AsyncExitStack()
        await self._lifespan.enter_async_context(self._app.router.lifespan_context(self._app))

    async def __del__(self) -> None:
        if hasattr(self, "_lifespan"):
            await self._lifespan.aclose()

    async def stream(self, blocks: Blocks, scope: Scope, body: bytes) -> AsyncIterator[bytes]:
        """Answer a request: pickled lists of ASGI messages, as many in each as there are. ``blocks`` is for routers."""
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.Event()

        async def receive() -> Message:
            if request:
                return request.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self.answer(scope, receive, messages.put)
            finally:
                messages.put_nowait(None)

        task = asyncio.create_task(run())
        try:
            ended = False
            while not ended:
                some = [await messages.get()]
                while not messages.empty():
                    some.append(messages.get_nowait())
                ended = some[-1] is None
                yield pickle.dumps([message for message in some if message is not None])
            await task
        finally:  # also when the caller has cancelled
            gone.set()
            if not task.done():
                await asyncio.wait({task}, timeout=10)
                task.cancel()
