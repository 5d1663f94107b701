"""Responses that a server remembers, of which there are only so many, and so large ones."""

from __future__ import annotations

import pytest

from executorch_webgpu.serve import responses

from .served import HTTP, Served

pytestmark = pytest.mark.slow


def test_the_oldest_go_when_they_are_too_many_or_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "KEPT", 5)
    monkeypatch.setattr(responses, "KEPT_BYTES", 1000)
    language: object = None
    route = responses.Responses(language)  # type: ignore[arg-type]  # which keeping needs nothing of

    def kept(name: str, size: int) -> list[str]:
        route.keep({"id": name}, [{"text": "x" * (size - 30)}])  # and what is around it, as JSON
        return list(route._kept)

    for number in range(7):
        kept(str(number), 100)
    assert kept("7", 100) == ["3", "4", "5", "6", "7"]
    assert kept("large", 750) == ["6", "7", "large"]
    assert kept("too large", 1010) == [] and route._bytes == 0


def test_a_response_that_is_deleted_is_gone(served: Served) -> None:
    body = {"input": "hello", "max_output_tokens": 16}
    first = served.post("/v1/responses", body).json()
    url = f"{served.url}/v1/responses/{first['id']}"
    assert HTTP.get(url).json()["id"] == first["id"]
    assert served.post("/v1/responses", {**body, "previous_response_id": first["id"]}).status_code == 200
    assert HTTP.delete(url).json()["deleted"]
    assert HTTP.get(url).status_code == HTTP.delete(url).status_code == 404
    assert served.post("/v1/responses", {**body, "previous_response_id": first["id"]}).status_code == 404
