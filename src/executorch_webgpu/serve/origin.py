"""Which names a server on loopback answers to, and which web pages may ask it.

Any web page can make a browser send requests to 127.0.0.1. DNS rebinding lets a page read the answers too: its own
name becomes 127.0.0.1, so to the browser they are its own. Only the ``Host`` header tells.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import ApiError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether a server bound to this name or address hears from its own machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_name(header: str) -> str:
    """The name or address of a ``Host`` header without its port, in small letters; "" for what is none."""
    try:
        parts = urlsplit(f"//{header.strip()}")
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return ""
    plain = not (parts.path or parts.query or parts.fragment or parts.username or parts.password)
    return (parts.hostname or "").rstrip(".") if plain else ""


class HostCheck:
    """Middleware: 403 for requests by another name than those of loopback and ``names``, and for other pages' requests.

    ``origins``: pages, as in ``--cors-origin``, that may ask; "*" lets all pages ask. It is for servers bound to
    loopback, whose names are known.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self.app = app
        self.names = {*LOOPBACK, *(host_name(name) or name.strip("[]").lower() for name in names)}
        self.origins = {origin.rstrip("/").lower() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refusal(Headers(scope=scope)) if scope["type"] != "lifespan" else None
        await (error.response() if error else self.app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> ApiError | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self.names:
            message = (
                "this server is for its own machine and does not answer to this Host; ask for 'localhost', "
                "or allow the name with --allowed-host"
            )
            return ApiError(403, message, code="host_not_allowed")
        # Browsers set this one, pages cannot; it is right behind a proxy that changes Host, too.
        if headers.get("sec-fetch-site") in ("same-origin", "none"):
            return None
        origin = headers.get("origin", "").lower()
        if origin and not self.origins & {"*", origin} and urlsplit(origin).netloc != hosts[0].strip().lower():
            message = "this web page may not ask this server; allow its origin with --cors-origin"
            return ApiError(403, message, code="origin_not_allowed")
        return None
