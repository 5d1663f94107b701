"""The chat page: static files that lie beside this module, and the headers that they are sent with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
}
# Scripts and styles of this server only, no inline ones, no remote loads, and no text that becomes HTML except through
# the sanitizer. The page says the same of itself, in case a proxy drops headers; frame-ancestors works only here.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'; trusted-types dompurify; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Names do not change with contents: a browser asks each time, and mostly hears that nothing changed.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page, in memory."""

    content: bytes
    media_type: str
    etag: str

    async def respond(self, request: Request) -> Response:
        """Answers with the file, or with 304 where the browser has it."""
        headers = {**HEADERS, "ETag": self.etag}
        known = (tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(","))
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers={**headers, "Content-Type": self.media_type})


def page_routes() -> list[Route]:
    """Returns the routes of the page: ``/``, and each of its files below ``/page/``. They need no API key."""
    files = {path.relative_to(FOLDER).as_posix(): path for path in sorted(FOLDER.rglob("*")) if path.suffix in TYPES}
    paths = {name: "/" if name == "index.html" else f"/page/{name}" for name in files}
    return [
        Route(paths[name], _read(path).respond, methods=["GET"], name=f"page:{name}") for name, path in files.items()
    ]


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
