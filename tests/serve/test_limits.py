"""Limits on bodies, and on how many requests run and wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from executorch_webgpu.serve.limits import BodyLimit, Limits, RequestQueue
from executorch_webgpu.serve.metrics import Metrics

from .asgi_calls import Exchange, Never, client, echo, http_scope
from .loopback import error_of

SMALL = Limits(max_body_bytes=100, max_bodies_bytes=150, body_seconds=0.1)


async def parts(*bodies: bytes) -> AsyncIterator[bytes]:
    for body in bodies:
        yield body


def message(body: bytes, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize("size", [0, 1, 100, 101, 5000])
def test_a_body_is_taken_up_to_the_limit_whether_its_length_is_stated_or_not(size: int) -> None:
    async def run() -> list[httpx.Response]:
        async with client(BodyLimit(echo, SMALL)) as http:
            body = b"x" * size
            return [
                await http.post("/v1/completions", content=body),
                await http.post("/v1/completions", content=parts(body[: size // 2], b"", body[size // 2 :])),
            ]

    for answer in asyncio.run(run()):
        if size <= 100:
            assert answer.content == b"x" * size
        else:
            assert answer.status_code == 413
            assert answer.headers["connection"] == "close"
            assert error_of(answer.content)["code"] == "body_too_large"


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_an_application_gets_the_body_in_one_message(bodies: list[bytes]) -> None:
    messages = [message(body, position < len(bodies) - 1) for position, body in enumerate(bodies)]
    exchange = Exchange(messages or [message(b"", False)])
    limit = BodyLimit(echo, Limits(max_body_bytes=100))
    asyncio.run(limit(http_scope(headers={"transfer-encoding": "chunked"}), exchange.receive, exchange.send))
    whole = b"".join(bodies)
    assert exchange.status == (200 if len(whole) <= 100 else 413)
    assert exchange.body == whole or len(whole) > 100
    assert limit._held == 0


def test_a_stated_length_alone_is_enough_where_the_client_waits_to_be_asked() -> None:
    exchange = Exchange([])
    scope = http_scope(headers={"content-length": "101", "expect": "100-continue"})
    asyncio.run(BodyLimit(echo, SMALL)(scope, exchange.receive, exchange.send))
    assert exchange.status == 413


@pytest.mark.parametrize("length", ["1" * 30, "99999999999999999999"])
def test_lengths_that_are_no_real_ones_are_too_large(length: str) -> None:
    exchange = Exchange([message(b"", False)])
    asyncio.run(BodyLimit(echo, SMALL)(http_scope(headers={"content-length": length}), exchange.receive, exchange.send))
    assert exchange.status == 413


def test_a_body_that_does_not_come_is_waited_for_only_so_long() -> None:
    exchange = Exchange([message(b"begin", True)])
    limit = BodyLimit(echo, SMALL)
    asyncio.run(limit(http_scope(headers={"content-length": "50"}), exchange.receive, exchange.send))
    assert exchange.status == 408
    assert error_of(exchange.body)["code"] == "body_timeout"
    assert limit._held == 0


def test_nothing_is_answered_to_a_client_that_left_in_the_middle() -> None:
    exchange = Exchange([message(b"begin", True), {"type": "http.disconnect"}])
    asyncio.run(BodyLimit(echo, SMALL)(http_scope(headers={"content-length": "50"}), exchange.receive, exchange.send))
    assert exchange.sent == []


def test_the_bodies_of_all_requests_are_bounded_together() -> None:
    async def run() -> tuple[int, int, int, int]:
        never = Never()
        limit = BodyLimit(never, SMALL)
        async with client(limit) as http:
            first = asyncio.create_task(http.post("/v1/completions", content=b"x" * 100))
            while not never.begun:
                await asyncio.sleep(0)
            second = await http.post("/v1/completions", content=b"x" * 60)
            assert second.headers["retry-after"] == "1"
            third = asyncio.create_task(http.post("/v1/completions", content=b"x" * 50))
            while never.begun < 2:
                await asyncio.sleep(0)
            never.release.set()
            return (await first).status_code, second.status_code, (await third).status_code, limit._held

    assert asyncio.run(run()) == (200, 429, 200, 0)


def test_only_so_many_requests_run_and_wait_in_their_order() -> None:
    async def run() -> None:
        metrics, never, order = Metrics(), Never(), list[int]()
        queue = RequestQueue(never, Limits(max_running=2, max_queue=3), metrics)

        def now() -> tuple[float | None, float | None]:
            value = metrics.registry.get_sample_value
            return value("etwebgpu_requests_running"), value("etwebgpu_requests_waiting")

        async with client(queue) as http:

            async def ask(number: int) -> int:
                status = (await http.post("/v1/chat/completions", content=b"")).status_code
                order.append(number)
                return status

            tasks = [asyncio.create_task(ask(number)) for number in range(5)]
            while now() != (2, 3):
                await asyncio.sleep(0)
            refused = await http.post("/v1/embeddings", content=b"")
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert error_of(refused.content)["type"] == "rate_limit_error"
            # What needs no model is answered all the same.
            never.release.set()
            assert (await http.post("/tokenize", content=b"")).status_code == 200
            assert await asyncio.gather(*tasks) == [200] * 5
            assert order == [0, 1, 2, 3, 4]
            assert now() == (0, 0)

    asyncio.run(run())


def test_a_request_that_gives_up_waiting_leaves_its_place_to_others() -> None:
    async def run() -> None:
        never = Never()
        queue = RequestQueue(never, Limits(max_running=1, max_queue=1), Metrics())
        async with client(queue) as http:
            running = asyncio.create_task(http.post("/v1/responses", content=b""))
            while not never.begun:
                await asyncio.sleep(0)
            for _ in range(3):
                waiting = asyncio.create_task(http.post("/v1/responses", content=b""))
                while queue._waiting == 0:
                    await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert queue._waiting == 0
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            never.release.set()
            assert (await http.post("/v1/responses", content=b"")).status_code == 200

    asyncio.run(run())


def test_retry_after_follows_how_long_requests_take() -> None:
    queue = RequestQueue(echo, Limits(max_running=4), Metrics())
    queue._seconds, queue._waiting = 8.0, 9
    assert queue.retry_seconds() == 20
    queue._seconds = 0.001
    assert queue.retry_seconds() == 1
    queue._seconds = 1e6
    assert queue.retry_seconds() == 300
