"""Errors as OpenAI's API answers them: a status, and one sentence in an object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

# Types of errors by status; clients tell them apart by the status.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}


@dataclass
class ApiError(Exception):
    """What a request is answered with that cannot be done.

    ``message``: one sentence that says what is wrong, and what to do. ``param``: the field of the request that is at
    fault, in dots and brackets ("messages[0].content"). ``code``: a word for programs ("context_length_exceeded").
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The object that the answer, or an event of a stream, holds."""
        type = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": type, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The answer."""
        content = json.dumps(self.body(), ensure_ascii=False).encode("utf-8", "replace")
        return Response(content, self.status, dict(self.headers), media_type="application/json")

    def __str__(self) -> str:
        return self.message
