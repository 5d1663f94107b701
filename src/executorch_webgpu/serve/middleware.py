"""All middlewares of the server, in their order.

An application makes one ``Limits``, ``Metrics`` and ``Draining``, gives them to ``middlewares`` and to
``listen.make_server``, and adds ``Metrics.endpoint`` as its route ``/metrics``. Routes find the request's record at
``request.state.record``, and set its numbers of tokens. They need not watch whether the client leaves: they are
cancelled then.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from .access_log import RequestLog
from .auth import ApiKeys, Authentication
from .lifetime import Lifetime
from .limits import BodyLimit, Limits, RequestQueue
from .metrics import Metrics
from .origin import HostCheck, is_loopback
from .shutdown import Draining, DrainingRequests


def middlewares(
    limits: Limits,
    metrics: Metrics,
    draining: Draining,
    keys: ApiKeys,
    host: str = "127.0.0.1",
    allowed_hosts: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    open_metrics: bool = False,
) -> list[Middleware]:
    """What ``Starlette(middleware=...)`` takes, from the outermost one in.

    ``host``: what the server is bound to. On loopback, or with ``allowed_hosts``, it answers to known names only.
    """
    checked = is_loopback(host) or bool(allowed_hosts)
    return [
        Middleware(RequestLog, metrics=metrics),
        # Ahead of what refuses: a page must be able to read why it was.
        *([_cors(cors_origins)] if cors_origins else []),
        *([Middleware(HostCheck, names=(host, *allowed_hosts), origins=cors_origins)] if checked else []),
        Middleware(DrainingRequests, draining=draining),
        # No body is read for who may not ask.
        Middleware(Authentication, keys=keys, open_metrics=open_metrics),
        Middleware(BodyLimit, limits=limits),
        # The time in the queue counts.
        Middleware(Lifetime, seconds=limits.request_seconds, metrics=metrics, draining=draining),
        Middleware(RequestQueue, limits=limits, metrics=metrics),
    ]


def _cors(origins: Sequence[str]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=[origin.rstrip("/") if origin != "*" else origin for origin in origins],
        allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after"],
    )
