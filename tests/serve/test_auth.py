"""API keys: where they come from, and whom they let in."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.serve.auth import ApiKeys, Authentication

from .asgi_calls import client, echo
from .loopback import error_of


def ask(keys: ApiKeys, path: str, method: str = "POST", open_metrics: bool = False, **headers: str) -> httpx.Response:
    async def run() -> httpx.Response:
        async with client(Authentication(echo, keys, open_metrics)) as http:
            return await http.request(method, path, headers=headers)

    return asyncio.run(run())


def test_each_key_lets_in_and_nothing_else_does() -> None:
    keys = ApiKeys(["first-key", "second-key"])
    for key in ("first-key", "second-key"):
        assert ask(keys, "/v1/completions", authorization=f"Bearer {key}").status_code == 200
        assert ask(keys, "/v1/completions", authorization=f"bearer {key}").status_code == 200
    for value in ("Bearer first", "Bearer first-key2", "Bearer ", "Bearer", "Basic first-key", "first-key", ""):
        answer = ask(keys, "/v1/completions", authorization=value)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert error_of(answer.content)["type"] == "authentication_error"
    assert ask(keys, "/v1/models", "GET").status_code == 401


def test_two_headers_are_none() -> None:
    async def run() -> int:
        async with client(Authentication(echo, ApiKeys(["a"]))) as http:
            headers = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
            return (await http.get("/v1/models", headers=headers)).status_code

    assert asyncio.run(run()) == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/", 200), ("HEAD", "/", 200), ("GET", "/page/app.js", 200), ("GET", "/health", 200)),
        *(("POST", "/", 401), ("POST", "/page/app.js", 401), ("GET", "/metrics", 401), ("GET", "/openapi.json", 401)),
        *(("GET", "/healthy", 401), ("GET", "//health", 401), ("GET", "/page", 401), ("OPTIONS", "/v1/models", 401)),
    ],
)
def test_only_health_and_the_page_are_open(method: str, path: str, status: int) -> None:
    # An absolute URL, as a path that begins with two slashes would name a host.
    assert ask(ApiKeys(["a"]), f"http://localhost{path}", method).status_code == status


def test_metrics_may_be_opened() -> None:
    assert ask(ApiKeys(["a"]), "/metrics", "GET", open_metrics=True).status_code == 200


def test_without_keys_everyone_may_ask() -> None:
    assert not ApiKeys()
    assert ask(ApiKeys(), "/v1/completions").status_code == 200


def test_keys_come_from_a_file_and_the_environment_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text("\ufeff# who may ask\nalice-key\n\n  bob-key  \r\n")
    path.chmod(0o600)
    keys = ApiKeys.load(path, {"ET_WEBGPU_API_KEY": "carol-key dave-key"})
    assert len(keys) == 4
    assert all(keys.hold(key) for key in (b"alice-key", b"bob-key", b"carol-key", b"dave-key"))
    assert not keys.hold(b"# who may ask")
    assert not caplog.records


def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text("alice-key")
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        ApiKeys.load(path, {})
    assert "chmod 600" in caplog.text and "alice-key" not in caplog.text


def test_what_holds_no_keys_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# nobody\n")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, reason in ((empty, "no API key"), (binary, "UTF-8"), (tmp_path / "gone", "No such file")):
        with pytest.raises(InvalidInputError, match=reason):
            ApiKeys.load(path, {})
    for key in ("with space", "kéy", "", "a\nb"):
        with pytest.raises(InvalidInputError, match="API key 2") as refused:
            ApiKeys(["fine", key])
        assert not key or key not in str(refused.value)
