"""Requests that end early, and what their clients are told."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from executorch_webgpu.serve.access_log import RequestLog
from executorch_webgpu.serve.lifetime import Lifetime
from executorch_webgpu.serve.metrics import Metrics
from executorch_webgpu.serve.shutdown import Draining

from .asgi_calls import Exchange, Never, Stream, echo, http_scope
from .loopback import error_of

BODY: Message = {"type": "http.request", "body": b"{}", "more_body": False}


def run(app: ASGIApp, exchange: Exchange, seconds: float, draining: Draining | None = None) -> tuple[Metrics, Scope]:
    metrics, scope = Metrics(), http_scope()
    stack = RequestLog(Lifetime(app, seconds, metrics, draining or Draining()), metrics)
    asyncio.run(stack(scope, exchange.receive, exchange.send))
    return metrics, scope


def count(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"etwebgpu_{name}_total")


def test_a_request_in_time_gets_its_answer() -> None:
    exchange = Exchange([BODY])
    _, scope = run(echo, exchange, 10)
    assert (exchange.status, exchange.body) == (200, b"{}")
    assert scope["state"]["record"].outcome == "complete"


def test_an_answer_that_has_not_begun_in_time_is_a_504() -> None:
    never, exchange = Never(), Exchange([BODY])
    metrics, scope = run(never, exchange, 0.05)
    assert never.cancelled == 1
    assert exchange.status == 504
    assert error_of(exchange.body)["type"] == "timeout_error"
    assert scope["state"]["record"].outcome == "time_limit"
    assert count(metrics, "requests_timed_out") == 1


def test_a_stream_of_events_ends_with_the_error_and_its_proper_end() -> None:
    stream, exchange = Stream(pause=0.01), Exchange([BODY])
    run(stream, exchange, 0.1)
    assert stream.cancelled == 1
    assert exchange.status == 200
    assert exchange.body.startswith(stream.event)
    last = exchange.body.removesuffix(b"\n\n").rsplit(b"\n\n", 1)[1]
    assert error_of(last.removeprefix(b"data: "))["code"] == "request_timeout"
    assert exchange.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_another_answer_that_has_begun_is_cut_off() -> None:
    stream, exchange = Stream(pause=0.01, content_type=b"application/json"), Exchange([BODY])
    run(stream, exchange, 0.1)
    assert stream.cancelled == 1
    assert set(exchange.body.split(b"\n\n")) == {b"data: {}", b""}
    assert exchange.sent[-1]["more_body"]


@pytest.mark.parametrize("app", [Never(), Stream(pause=0.01)])
def test_a_request_is_cancelled_when_its_client_goes_away(app: Never | Stream) -> None:
    exchange = Exchange([BODY, {"type": "http.disconnect"}])
    metrics, scope = run(app, exchange, 10)
    assert app.cancelled == 1
    assert scope["state"]["record"].outcome == "client_gone"
    assert count(metrics, "requests_cancelled") == 1


def test_a_disconnect_after_the_answer_cancels_nothing() -> None:
    """uvicorn says so of every connection once its answer is complete."""
    finished = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"
        await asyncio.sleep(0.01)
        finished.append(True)

    exchange = Exchange([BODY, {"type": "http.disconnect"}])

    async def after(message: Message) -> None:
        exchange.sent.append(message)

    async def receive() -> Message:
        if len(exchange._left) == 1:
            while len(exchange.sent) < 2:
                await asyncio.sleep(0)
        return await exchange.receive()

    metrics = Metrics()
    asyncio.run(Lifetime(app, 10, metrics, Draining())(http_scope(), receive, after))
    assert finished == [True]
    assert count(metrics, "requests_cancelled") == 0


def test_what_a_stopping_server_ends_is_told_so() -> None:
    draining = Draining()

    async def end(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_later(0.02, draining.end_requests)
        await never(scope, receive, send)

    never, exchange = Never(), Exchange([BODY])
    _, scope = run(end, exchange, 10, draining)
    assert exchange.status == 503
    assert error_of(exchange.body)["code"] == "shutting_down"
    assert dict(exchange.sent[0]["headers"])[b"retry-after"]
    assert scope["state"]["record"].outcome == "shutdown"
    assert not draining.enders


def test_an_error_of_the_route_passes_through_and_one_while_it_is_cancelled_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def fails_when_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    exchange = Exchange([BODY])
    run(fails, exchange, 10)
    assert exchange.status == 500
    exchange = Exchange([BODY])
    with caplog.at_level(logging.ERROR):
        run(fails_when_cancelled, exchange, 0.02)
    assert exchange.status == 504
    assert "while it was cancelled" in caplog.text


def test_cancelling_the_whole_ends_the_route() -> None:
    never = Never()

    async def cancel() -> None:
        exchange = Exchange([BODY])
        lifetime = Lifetime(never, 10, Metrics(), Draining())
        task = asyncio.ensure_future(lifetime(http_scope(), exchange.receive, exchange.send))
        while not never.begun:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancel())
    assert never.cancelled == 1


def test_the_event_is_json_in_one_line() -> None:
    stream, exchange = Stream(pause=0.01), Exchange([BODY])
    run(stream, exchange, 0.03)
    lines = [line for line in exchange.body.split(b"\n") if line]
    assert all(isinstance(json.loads(line.removeprefix(b"data: ")), dict) for line in lines)
