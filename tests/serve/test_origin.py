"""Names that a server on loopback answers to, and web pages that may ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from executorch_webgpu.serve.auth import ApiKeys
from executorch_webgpu.serve.limits import Limits
from executorch_webgpu.serve.metrics import Metrics
from executorch_webgpu.serve.middleware import middlewares
from executorch_webgpu.serve.origin import host_name, is_loopback
from executorch_webgpu.serve.shutdown import Draining

from .asgi_calls import client, echo
from .loopback import error_of


def ask(
    headers: dict[str, str],
    host: str = "127.0.0.1",
    names: Sequence[str] = (),
    origins: Sequence[str] = (),
    method: str = "POST",
    key: str | None = None,
) -> httpx.Response:
    keys = ApiKeys([key] if key else [])
    stack = middlewares(Limits(), Metrics(), Draining(), keys, host, names, origins)
    app = Starlette(routes=[Mount("/", app=echo)], middleware=stack)

    async def run() -> httpx.Response:
        async with client(app) as http:
            return await http.request(method, "/v1/completions", headers=headers)

    return asyncio.run(run())


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "localhost."]
)
def test_names_of_loopback_are_answered(host: str) -> None:
    assert ask({"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "localhost:port",
        ),
        *("user@localhost", "localhost/path", "127.0.0.2", "[::2]", "[", "0.0.0.0"),
    ],
)
def test_other_names_are_refused(host: str) -> None:
    answer = ask({"host": host})
    assert answer.status_code == 403
    assert error_of(answer.content)["code"] == "host_not_allowed"


def test_names_can_be_allowed_and_other_bindings_take_all() -> None:
    assert ask({"host": "box.local:80"}, names=["box.local"]).status_code == 200
    assert ask({"host": "127.0.0.2"}, host="127.0.0.2").status_code == 200
    assert ask({"host": "any.example"}, host="0.0.0.0").status_code == 200
    assert ask({"host": "any.example"}, host="0.0.0.0", names=["box.local"]).status_code == 403


def test_other_pages_are_refused_even_without_a_preflight() -> None:
    page = {"host": "localhost:8000", "origin": "http://evil.example"}
    assert error_of(ask(page).content)["code"] == "origin_not_allowed"
    assert ask({**page, "origin": "null"}).status_code == 403
    assert ask({**page, "sec-fetch-site": "cross-site"}).status_code == 403
    assert ask({**page, "origin": "http://localhost:9000"}).status_code == 403
    assert ask({**page, "origin": "http://localhost:8000"}).status_code == 200
    # Behind a proxy that changes the host, the browser still knows.
    assert ask({**page, "origin": "https://chat.example", "sec-fetch-site": "same-origin"}).status_code == 200


def test_no_page_may_read_answers_unless_its_origin_is_allowed() -> None:
    page = {"host": "localhost", "origin": "https://chat.example"}
    assert "access-control-allow-origin" not in ask({"host": "localhost"}).headers
    answer = ask(page, origins=["https://chat.example/"])
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert ask(page, origins=["*"]).headers["access-control-allow-origin"] == "*"
    assert ask(page, origins=["https://other.example"]).status_code == 403


def test_a_preflight_needs_no_key_and_a_refusal_can_be_read() -> None:
    page = {"host": "localhost", "origin": "https://chat.example"}
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-stainless-os"}
    origins = ["https://chat.example"]
    preflight = ask({**page, **asks}, origins=origins, method="OPTIONS", key="secret")
    assert preflight.status_code == 200
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    refused = ask(page, origins=origins, key="secret")
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://chat.example"


def test_names_and_addresses() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "LOCALHOST")] == [True] * 5
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example")] == [False] * 4
    assert host_name("Example.COM:80") == "example.com"
    assert host_name("[::1]:8000") == "::1"
