"""What a front does where replicas fail: only one that is lost is worth another try."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from ray import serve

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.ray.front import ATTEMPTS, Front
from executorch_webgpu.serve.limits import Limits
from tests.ray.test_serve import SECONDS, free_port

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
EVENT = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}


class Calls:
    """Counts calls, also of replicas that are gone."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        """Returns how many there were before."""
        self.count += 1
        return self.count - 1


class Failing:
    """Replicas that fail as the body says: by a fault of their own, before or in an answer, or by going."""

    def __init__(self, calls: Any) -> None:
        self._calls = calls

    async def stream(self, blocks: Any, scope: Any, body: bytes) -> AsyncIterator[bytes]:
        """As ``HandledReplica`` has it."""
        await self._calls.add.remote()
        if body == b"goes":
            os._exit(1)
        if body == b"in an answer":
            yield pickle.dumps([HEAD, EVENT])
        raise InvalidInputError("a secret of the prompt")


@pytest.fixture(scope="module")
def front(cluster: str) -> Iterator[tuple[str, Any]]:
    import ray

    assert cluster
    calls = ray.remote(num_cpus=0)(Calls).remote()
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    light = {"ray_actor_options": {"num_cpus": 0}}
    failing = serve.deployment(name="failing", num_replicas=1, **light)(Failing).bind(calls)
    serve.run(serve.deployment(name="front", **light)(serve.ingress()(Front)).bind(failing, Limits(), None, False))
    yield f"http://127.0.0.1:{port}", calls
    serve.shutdown()


@pytest.mark.slow
def test_only_a_lost_replica_is_tried_again(front: tuple[str, Any]) -> None:
    import ray

    url, calls = front

    def asked(body: bytes, path: str = "/v1/completions") -> tuple[httpx.Response, int]:
        before = ray.get(calls.add.remote())
        answer = httpx.post(f"{url}{path}", content=body, timeout=SECONDS)
        return answer, ray.get(calls.add.remote()) - before - 1

    answer, tries = asked(b"{}")
    assert (answer.status_code, answer.json()["error"]["code"], tries) == (500, "internal_error", 1)
    assert "secret" not in answer.text
    answer, tries = asked(b"in an answer")
    first, last = answer.text.removesuffix("\n\n").split("\n\n")
    assert (first, json.loads(last.removeprefix("data: "))["error"]["code"], tries) == ("data: 1", "internal_error", 1)
    answer, _ = asked(b"in an answer", "/v1/responses")
    event, data = answer.text.removesuffix("\n\n").split("\n\n")[1].split("\n")
    told = json.loads(data.removeprefix("data: "))
    assert (event, told["type"], told["code"]) == ("event: error", "error", "internal_error")
    answer, tries = asked(b"goes")
    assert (answer.status_code, answer.json()["error"]["code"], tries) == (503, "replica_lost", ATTEMPTS)
