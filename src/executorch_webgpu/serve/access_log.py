"""Logs: one line for each request, and an id that joins all lines of one. Never prompts, texts or keys."""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeAlias

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .metrics import Metrics
from .routes import name_of

SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CLIENT_GONE = 499  # what logs and metrics show for a request whose client left before the answer began
QUIET = {"/health", "/metrics"}  # routes that machines ask all the time: logged at level DEBUG

ExceptionInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

logger = logging.getLogger(__name__)
current_id: ContextVar[str | None] = ContextVar("etwebgpu_request_id", default=None)


@dataclass
class RequestRecord:
    """What is known of a request, and logged at its end. Routes find it at ``request.state.record``.

    They set ``model`` and the numbers of tokens. ``outcome`` is "complete", "client_gone", "time_limit", "shutdown" or
    "error". Times are ``time.perf_counter()``.
    """

    request_id: str
    route: str
    method: str
    begin: float
    client: str | None = None
    status: int | None = None
    first_byte: float | None = None
    outcome: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    generated_tokens: int | None = None

    def fields(self, end: float) -> dict[str, Any]:
        """The line: what is not known is left out; times in milliseconds since the request's head."""
        first = None if self.first_byte is None else _milliseconds(self.first_byte - self.begin)
        fields = {
            "client": self.client,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "outcome": self.outcome,
            "duration_ms": _milliseconds(end - self.begin),
            "first_byte_ms": first,
            "model": self.model,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "generated_tokens": self.generated_tokens,
        }
        return {name: value for name, value in fields.items() if value is not None}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


class RequestLog:
    """Middleware, the outermost one: gives each request its id and record, and logs and counts it at its end.

    A sane ``X-Request-Id`` of the client is kept, else one is made; the answer's ``x-request-id`` tells. An exception
    that nobody has turned into an answer becomes a 500, and its traceback a line of the log.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if SANE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        address = scope.get("client")
        client = address[0] if address else None
        record = RequestRecord(request_id, name_of(scope), scope["method"], time.perf_counter(), client)
        scope.setdefault("state", {})["record"] = record

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            elif message["type"] == "http.response.body":
                if record.first_byte is None and message.get("body"):
                    record.first_byte = time.perf_counter()
                if record.outcome is None and not message.get("more_body", False):
                    record.outcome = "complete"
            await send(message)

        token = current_id.set(request_id)
        try:
            await self._answer(record, scope, receive, observed)
        finally:
            self._end(record)
            current_id.reset(token)

    async def _answer(self, record: RequestRecord, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if isinstance(error, ApiError) and record.status is None:
                return await error.response()(scope, receive, send)
            record.outcome = "error"
            self.metrics.failed()
            logger.exception("a request failed, by a fault of the server", extra={"request_id": record.request_id})
            if record.status is None:
                message = f"the server failed; its log says more, at {record.request_id}"
                await ApiError(500, message, code="internal_error").response()(scope, receive, send)
            # Else the server closes the connection, as the answer is not complete.

    def _end(self, record: RequestRecord) -> None:
        end = time.perf_counter()
        record.outcome = record.outcome or "client_gone"
        record.status = record.status or CLIENT_GONE
        self.metrics.answered(record.route, record.status, end - record.begin)
        quiet = record.route in QUIET and record.status < 400
        level = logging.DEBUG if quiet else logging.WARNING if record.status >= 500 else logging.INFO
        if logger.isEnabledFor(level):
            extra = {"request_id": record.request_id, "fields": record.fields(end)}
            logger.log(level, "request", extra=extra)


def _trace(error: BaseException) -> str:
    """Where an exception came from, without what it says: that may hold a prompt."""
    parts, seen = [], set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = "".join(traceback.format_tb(cause.__traceback__))
        parts.append(f"{type(cause).__module__}.{type(cause).__qualname__}\n{frames}".rstrip())
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nafter ".join(parts)


class _Formatter(logging.Formatter):
    """What both formats share: no exception's message, and the request's id."""

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802, logging's name
        return _trace(ei[1]) if ei[1] is not None else ""

    def stamp(self, record: logging.LogRecord) -> str:
        milliseconds = int(record.msecs)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{milliseconds:03d}Z"

    def request_id(self, record: logging.LogRecord) -> str | None:
        return getattr(record, "request_id", None) or current_id.get()

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        found: dict[str, Any] = getattr(record, "fields", {})
        return found


class JsonFormatter(_Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request_id, fields and exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := self.request_id(record):
            line["request_id"] = request_id
        line |= self.fields(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(_Formatter):
    """A line for people: time, level, request_id, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = [f"{name}={value}" for name, value in self.fields(record).items()]
        words = [self.stamp(record), record.levelname, self.request_id(record) or "-", record.getMessage(), *fields]
        line = " ".join(words).encode("unicode_escape").decode()  # a message is one line
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def log_config(format: Literal["json", "text"] = "text", level: str = "info") -> dict[str, Any]:
    """What ``logging.config.dictConfig`` and uvicorn's ``log_config`` take: all lines to stderr, in one format."""
    formatter = JsonFormatter if format == "json" else TextFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "loggers": {
            "executorch_webgpu": {"handlers": ["stderr"], "level": level.upper(), "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": level.upper(), "propagate": False},
            # Its line has the query, and no id; ours takes its place.
            "uvicorn.access": {"handlers": [], "propagate": False},
        },
    }
