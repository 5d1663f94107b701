"""What clients get that meet the limits of a server, and when it stops, or its engine dies."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.llm.chat_model import ChatModel
from tests.serve.loopback import error_of, wait_until

from .served import HTTP, Served, children, serve

pytestmark = pytest.mark.slow

KEY = {"authorization": "Bearer open-sesame"}
ENDLESS = {"prompt": "hello", "max_tokens": 200, "ignore_eos": True}


@pytest.fixture
def tight(chat_model: ChatModel, tmp_path: Path) -> Iterator[Served]:
    """One request runs, one waits, and neither takes long."""
    keys = tmp_path / "keys"
    keys.write_text("# for tests\nopen-sesame\n")
    keys.chmod(0o600)
    options = ["--max-running", "1", "--max-queue", "1", "--request-seconds", "2", "--grace-seconds", "60"]
    with serve(chat_model.program, *options, "--api-key-file", str(keys), headers=KEY) as server:
        yield server


def slow(served: Served, **fields: Any) -> dict[str, Any]:
    """A request that takes longer than it may: many texts, with more tokens than the server makes meanwhile."""
    return {"model": served.model, **ENDLESS, "n": 128, "temperature": 1, **fields}


def post(served: Served, body: dict[str, Any]) -> httpx.Response:
    return HTTP.post(f"{served.url}/v1/completions", json=body, headers=KEY)


def test_limits_and_a_stop(tight: Served) -> None:
    url = f"{tight.url}/v1/completions"
    assert error_of(HTTP.post(url, json=ENDLESS).content)["code"] == "missing_api_key"
    assert HTTP.get(f"{tight.url}/metrics").status_code == 401
    assert HTTP.get(f"{tight.url}/").status_code == HTTP.get(f"{tight.url}/health").status_code == 200

    # Time that is over: an error before the first byte, an event after it.
    answer = post(tight, slow(tight))
    assert answer.status_code == 504
    assert error_of(answer.content)["code"] == "request_timeout"
    answer = post(tight, slow(tight, stream=True))
    assert answer.status_code == 200
    assert error_of(answer.content.split(b"data: ")[-1])["code"] == "request_timeout"
    wait_until(tight.at_rest, 60)

    # A queue that is full.
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(post(tight, slow(tight)).status_code)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [429, 429, 429, 504, 504]
    wait_until(tight.at_rest, 60)

    # A stop: what runs is finished, nothing else is begun.
    body = {"model": tight.model, **ENDLESS, "max_tokens": 150, "seed": 1, "temperature": 1, "stream": True}
    with HTTP.stream("POST", url, json=body, headers=KEY) as stream:
        lines = stream.iter_lines()
        data = [next(lines)]
        os.kill(tight.pid, signal.SIGTERM)
        data += lines
    assert "data: [DONE]" in data


def test_an_engine_that_dies_ends_its_streams_with_an_error_and_comes_back(chat_model: ChatModel) -> None:
    with serve(chat_model.program, "--kv-pages", "640") as served:
        before = served.text("hello", 10, seed=5, temperature=1)
        body = {"model": served.model, **ENDLESS, "stream": True, "n": 16}
        with HTTP.stream("POST", f"{served.url}/v1/completions", json=body) as stream:
            lines = stream.iter_lines()
            next(lines)
            (engine,) = children(served.pid)
            os.kill(engine, signal.SIGKILL)
            last = [line for line in lines if line][-1]
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["type"] == "server_error" and "again" in error["message"]
        wait_until(lambda: HTTP.get(f"{served.url}/health").status_code == 200, 60)
        assert served.text("hello", 10, seed=5, temperature=1) == before
        wait_until(served.at_rest, 60)
