"""Where requests come in with RAY_SERVE_ENABLE_HA_PROXY=1: HAProxy asks a router where each goes, and sends it there.

No Python but the replica's own then touches an answer. HAProxy gives the router the request's body, of which it may
have read only the beginning.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import Error
from ..serve.errors import ApiError
from .asgi import asgi_function, lifespan_of_none
from .prefixes import prefix_blocks


class Route:
    """The deployment that HAProxy asks; ``replicas`` is a handle of those that answer."""

    def __init__(self, replicas: Any) -> None:
        self._replicas = replicas
        replicas._init()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return asgi_function(self.answer)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /internal/route``: the replica for the request in the body, as HAProxy's script understands it."""
        if scope["type"] == "lifespan":
            return await lifespan_of_none(receive, send)
        body = bytearray()
        while (message := await receive()).get("more_body", False):
            body += message["body"]
        body += message.get("body", b"")
        try:
            # HAProxy sends the request itself, so no place is held for it.
            async with self._replicas.choose_replica(prefix_blocks(bytes(body)), _reserve=False) as chosen:
                replica = chosen._replica
        except Exception as error:  # no replicas, or none any more
            return await ApiError(503, f"no replica can be chosen: {error}").response()(scope, receive, send)
        host, port = replica.backend_http_endpoint
        answer = {"host": host, "port": port, "replica_id": replica.replica_id.to_full_id_str()}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def with_route(replicas: Any, route: Any) -> Any:
    """The application of ``replicas`` whose requests go where ``route`` says. Both are bound deployments.

    Raises Error when this version of Ray Serve has no such hook.
    """
    attach = getattr(replicas, "_with_ingress_request_router", None)
    if attach is None:
        raise Error("this version of Ray Serve takes no router for HAProxy: unset RAY_SERVE_ENABLE_HA_PROXY")
    return attach(route)
