"""ASGI as Ray Serve's deployments need it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


def asgi_function(app: ASGIApp) -> ASGIApp:
    """The application as a plain function: uvicorn takes a bound method for one of ASGI's older kind."""

    async def function(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return function


async def lifespan_of_none(receive: Receive, send: Send) -> None:
    """The answers of an application that has nothing to start and to stop."""
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
