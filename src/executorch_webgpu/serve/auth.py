"""API keys: whose requests are answered, when not everyone's are."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import InvalidInputError
from .errors import ApiError
from .routes import is_page, path_of

KEY_VARIABLE = "ET_WEBGPU_API_KEY"
KEY = re.compile(r"[!-~]+")  # what a header can hold: visible ASCII

logger = logging.getLogger(__name__)


class ApiKeys:
    """Hashes of the keys that are taken. The keys themselves are not kept.

    ``keys``: visible ASCII each, else an ``InvalidInputError`` that does not repeat them. No keys: all may ask.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        keys = list(keys)
        if wrong := [position for position, key in enumerate(keys, 1) if not KEY.fullmatch(key)]:
            raise InvalidInputError(f"API key {wrong[0]} has spaces, or other letters than visible ASCII; make another")
        self._digests = tuple(_digest(key.encode()) for key in keys)

    @classmethod
    def load(cls, path: str | Path | None = None, environment: Mapping[str, str] = os.environ) -> ApiKeys:
        """The keys of a file and of ``ET_WEBGPU_API_KEY``, both together.

        The file has a key a line; what follows ``#`` at the start of a line is a comment. The variable has one key, or
        several with spaces between them. A file that is not there, is no text, or holds no key is an
        ``InvalidInputError``; one that other users can read, a warning in the log.
        """
        keys = environment.get(KEY_VARIABLE, "").split()
        if path is not None:
            keys += _keys_of_file(Path(path))
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __len__(self) -> int:
        return len(self._digests)

    def hold(self, key: bytes) -> bool:
        """Whether this is one of the keys. Takes the same time for each, and looks at all of them."""
        digest = _digest(key)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _keys_of_file(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidInputError(f"cannot read API keys from {path}: {reason}") from error
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("other users can read the API keys in %s; say `chmod 600 %s`", path, path)
    lines = (line.strip() for line in text.removeprefix("\ufeff").splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidInputError(f"{path} holds no API key; write one a line")
    return keys


class Authentication:
    """Middleware: requests need a key, but for ``/health`` and the chat page's files, whose page asks for one.

    ``open_metrics``: whether ``/metrics`` needs none either.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, open_metrics: bool = False) -> None:
        self.app = app
        self.keys = keys
        self.open = {"/health", "/metrics"} if open_metrics else {"/health"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self.keys or self._is_open(scope):
            await self.app(scope, receive, send)
        elif error := self._refusal(Headers(scope=scope).getlist("authorization")):
            await error.response()(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return scope["type"] == "http" and (path_of(scope) in self.open or is_page(scope))

    def _refusal(self, headers: list[str]) -> ApiError | None:
        scheme, _, key = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            message = "this server needs an API key: send the header 'Authorization: Bearer KEY'"
            return ApiError(401, message, code="missing_api_key", headers={"WWW-Authenticate": "Bearer"})
        if not self.keys.hold(key.strip().encode("latin-1")):
            message = "the API key is none of this server's; ask who runs it for one"
            challenge = 'Bearer error="invalid_token"'
            return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": challenge})
        return None
