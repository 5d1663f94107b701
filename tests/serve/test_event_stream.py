"""Streams of events: what shows that one is alive, and how one that fails ends, on the wire and in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from starlette.types import Receive, Scope, Send

from executorch_webgpu.serve import http
from executorch_webgpu.serve.access_log import RequestLog
from executorch_webgpu.serve.answer import Answer
from executorch_webgpu.serve.errors import ApiError
from executorch_webgpu.serve.http import EventStream
from executorch_webgpu.serve.lifetime import Lifetime
from executorch_webgpu.serve.metrics import Metrics
from executorch_webgpu.serve.shutdown import Draining
from tests.serve.asgi_calls import Exchange, http_scope
from tests.serve.serving import serving, write_tiny_model

BODY = {"type": "http.request", "body": b"{}", "more_body": False}


def sent(events: AsyncIterator[bytes], path: str = "/v1/completions") -> tuple[Exchange, Any, Metrics]:
    """What a client gets of a stream behind the middlewares, and the record of the request."""
    metrics, exchange, scope = Metrics(), Exchange([BODY]), http_scope(path=path)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await EventStream(events, (), metrics)(scope, receive, send)

    stack = RequestLog(Lifetime(app, 30, metrics, Draining()), metrics)
    asyncio.run(stack(scope, exchange.receive, exchange.send))
    return exchange, scope["state"]["record"], metrics


async def failing(error: Exception) -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"
    raise error


@pytest.mark.parametrize(
    ("error", "status", "counted"),
    [(ApiError(503, "gone"), "server_error", 1), (ApiError(400, "no"), "invalid_request_error", 0)],
)
def test_a_stream_that_fails_is_logged_so(error: ApiError, status: str, counted: int) -> None:
    exchange, record, metrics = sent(failing(error))
    assert exchange.body.startswith(b"data: 1\n\n")
    last = json.loads(exchange.body.removesuffix(b"\n\n").rsplit(b"\n\n", 1)[1].removeprefix(b"data: "))
    assert (last["error"]["message"], last["error"]["type"]) == (error.message, status)
    assert exchange.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert (record.status, record.outcome) == (200, "error")
    assert metrics.registry.get_sample_value("etwebgpu_errors_total") == counted


def test_a_fault_of_the_server_shows_nothing_of_itself() -> None:
    exchange, record, _ = sent(failing(RuntimeError("a secret")))
    assert b"secret" not in exchange.body and b"internal_error" in exchange.body
    assert record.outcome == "error"


def test_events_of_responses_have_a_type_even_where_no_route_can_be_asked() -> None:
    async def run() -> list[Any]:
        exchange = Exchange([BODY])
        answer = Answer(http_scope(path="/v1/responses"), exchange.receive, exchange.send)
        head = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await answer.send({"type": "http.response.start", "status": 200, "headers": head})
        for _ in range(2):
            await answer.send({"type": "http.response.body", "body": b"event: x\ndata: {}\n\n", "more_body": True})
        assert await answer.fail(ApiError(503, "the replica is gone", code="replica_lost"))
        assert not await answer.fail(ApiError(503, "again"))  # it is complete
        return exchange.body.split(b"\n\n")[2].split(b"\n")

    name, data = asyncio.run(run())
    assert name == b"event: error"
    told = json.loads(data.removeprefix(b"data: "))
    wanted = {"type": "error", "sequence_number": 2, "message": "the replica is gone", "code": "replica_lost"}
    assert told == wanted | {"param": None}


def test_a_silent_stream_shows_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PING_SECONDS", 0.02)
    enough = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        while exchange.body.count(b": ping\n\n") < 3:
            await asyncio.sleep(0.005)
        yield b"data: 2\n\n"
        enough.set()

    async def run() -> None:
        await EventStream(silent(), (), Metrics())(http_scope(), exchange.receive, exchange.send)

    exchange = Exchange([BODY])
    asyncio.run(asyncio.wait_for(run(), 30))
    assert exchange.body.startswith(b"data: 1\n\n: ping\n\n") and exchange.body.endswith(b"data: 2\n\n")
    assert exchange.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_a_request_that_takes_too_long_ends_as_its_clients_know_it(tmp_path: Any) -> None:
    with serving([str(write_tiny_model(tmp_path)), "--request-seconds", "1", "--no-page"]) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        on: Any = {"stream": True, "extra_body": {"ignore_eos": True, "logit_bias": {"1": 1}}}
        told = list(client.responses.create(model="tiny", input="hello", max_output_tokens=900, **on))
        assert [event.sequence_number for event in told] == list(range(len(told)))
        last = told[-1]
        assert last.type == "response.failed" and last.response.status == "failed"
        assert last.response.error is not None and "took longer than 1 seconds" in last.response.error.message
        assert last.response.id == told[0].response.id
        body = {"prompt": "hello", "max_tokens": 900, "ignore_eos": True, "stream": True, "logit_bias": {"1": 1}}
        other = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
        event = json.loads(other.text.removesuffix("\n\n").rsplit("\n\n", 1)[1].removeprefix("data: "))
        assert event["error"]["code"] == "request_timeout"
        assert any("outcome=time_limit" in line for line in server.output)
