"""How a server stops."""

from __future__ import annotations

import asyncio
import json
import signal

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from executorch_webgpu.serve.auth import ApiKeys
from executorch_webgpu.serve.limits import Limits
from executorch_webgpu.serve.metrics import Metrics
from executorch_webgpu.serve.middleware import middlewares
from executorch_webgpu.serve.shutdown import Draining, DrainingRequests

from .asgi_calls import Stream, client, echo
from .loopback import Running, error_of, serving, wait_until


def test_a_draining_server_says_so_and_takes_nothing_new() -> None:
    async def run() -> list[httpx.Response]:
        draining = Draining()
        async with client(DrainingRequests(echo, draining)) as http:
            before = await http.post("/v1/completions", content=b"x")
            draining.begin()
            return [before, *[await http.get(path) for path in ("/v1/models", "/health", "/metrics")]]

    before, models, health, metrics = asyncio.run(run())
    assert before.status_code == 200
    assert models.status_code == 503 and error_of(models.content)["code"] == "shutting_down"
    assert models.headers["retry-after"] and models.headers["connection"] == "close"
    assert health.status_code == 503 and json.loads(health.content) == {"status": "draining"}
    assert metrics.status_code == 200


def test_it_is_done_when_nothing_runs_or_the_time_is_over() -> None:
    draining = Draining(grace_seconds=1000)
    done = [draining.done]
    draining.active = 1
    draining.begin()
    done.append(draining.done)
    draining.active = 0
    done.append(draining.done)
    draining.active = 1
    draining.begin(2000)  # nothing gives more time
    done.append(draining.done)
    draining.begin(0)
    done.append(draining.done)
    assert draining.begun and done == [False, False, True, False, True]


def application(stream: Stream, draining: Draining, metrics: Metrics) -> Starlette:
    routes = [Route("/health", lambda _: PlainTextResponse("fine")), Mount("/", app=stream)]
    return Starlette(routes=routes, middleware=middlewares(Limits(), metrics, draining, ApiKeys()))


def stop(server: Running) -> None:
    """What a signal does, which only a main thread can get."""
    server.server.handle_exit(signal.SIGTERM, None)


def test_a_stream_finishes_while_new_requests_are_refused() -> None:
    stream, draining, metrics = Stream(pause=0.02, count=30), Draining(grace_seconds=60), Metrics()
    app = application(stream, draining, metrics)
    with serving(app, metrics=metrics, draining=draining) as server, httpx.Client(timeout=20) as http:
        url = f"http://127.0.0.1:{server.port}"
        assert http.get(f"{url}/health").text == "fine"
        with http.stream("POST", f"{url}/v1/completions", content=b"{}") as answer:
            parts = answer.iter_bytes()
            text = next(parts)
            stop(server)
            assert http.get(f"{url}/health").json() == {"status": "draining"}
            assert http.post(f"{url}/v1/completions", content=b"{}").status_code == 503
            text += b"".join(parts)
        assert text == stream.event * 30
        wait_until(lambda: server.server.should_exit)
    assert stream.cancelled == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_what_is_left_after_the_time_or_a_second_signal_ends_with_an_event(signals: int) -> None:
    stream, metrics = Stream(pause=0.01), Metrics()
    draining = Draining(grace_seconds=0.2 if signals == 1 else 1000)
    app = application(stream, draining, metrics)
    with (
        serving(app, metrics=metrics, draining=draining) as server,
        httpx.stream("POST", f"http://127.0.0.1:{server.port}/v1/completions", content=b"{}") as answer,
    ):
        parts = answer.iter_bytes()
        text = next(parts)
        for _ in range(signals):
            stop(server)
        text += b"".join(parts)
    last = text.removesuffix(b"\n\n").rsplit(b"\n\n", 1)[1]
    assert error_of(last.removeprefix(b"data: "))["code"] == "shutting_down"
    assert stream.cancelled == 1
