"""The application behind uvicorn, with all of its bounds."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import uvicorn
from starlette.types import ASGIApp

from .access_log import log_config
from .connections import allow_open_files, connection_protocol
from .limits import Limits
from .metrics import Metrics
from .shutdown import Draining, DrainingServer

KEEP_ALIVE_SECONDS = 30  # that a connection may stay without a request
END_SECONDS = 5  # for streams to end, once the time to drain is over


def make_server(
    app: ASGIApp,
    limits: Limits,
    metrics: Metrics,
    draining: Draining,
    log_format: Literal["json", "text"] = "text",
    log_level: str = "info",
    **options: Any,
) -> DrainingServer:
    """A server of ``app``, which is behind ``middleware.middlewares``; ``run()`` returns when it has been stopped.

    ``limits``, ``metrics`` and ``draining`` are those of its middlewares. ``options`` are uvicorn's: ``host`` and
    ``port``, or ``uds``, or ``fd``; ``ssl_certfile`` and ``ssl_keyfile``. Raises the soft limit of open files; where
    that does not go far enough, fewer connections are taken.
    """
    bounded = dataclasses.replace(limits, max_connections=allow_open_files(limits.max_connections))
    config = uvicorn.Config(
        app,
        http=connection_protocol(bounded, metrics),
        ws="none",
        log_config=log_config(log_format, log_level),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
        **options,
    )
    return DrainingServer(config, draining)
