"""Responses that a server remembers, of which there are only so many, and so large ones."""

from __future__ import annotations

import httpx
import pytest

from executorch_webgpu.serve import responses

from .served import Served

pytestmark = pytest.mark.slow


def test_the_oldest_go_when_they_are_too_many_or_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "KEPT", 5)
    monkeypatch.setattr(responses, "KEPT_BYTES", 1000)
    language: object = None
    route = responses.Responses(language)  # type: ignore[arg-type]  # which keeping needs nothing of

    def kept() -> list[str]:
        return list(route._kept)

    for number in range(8):
        route.keep({"id": str(number)}, [{"text": "x" * 50}])
    assert kept() == ["3", "4", "5", "6", "7"]
    route.keep({"id": "large"}, [{"text": "x" * 750}])
    assert kept() == ["6", "7", "large"]
    route.keep({"id": "too large"}, [{"text": "x" * 1000}])
    assert kept() == [] and route._bytes == 0


def test_a_response_that_is_deleted_is_gone(served: Served) -> None:
    body = {"input": "hello", "max_output_tokens": 16}
    first = served.post("/v1/responses", body).json()
    url = f"{served.url}/v1/responses/{first['id']}"
    assert httpx.get(url).json()["id"] == first["id"]
    assert served.post("/v1/responses", {**body, "previous_response_id": first["id"]}).status_code == 200
    assert httpx.delete(url).json()["deleted"]
    assert httpx.get(url).status_code == httpx.delete(url).status_code == 404
    assert served.post("/v1/responses", {**body, "previous_response_id": first["id"]}).status_code == 404
