"""The server by Ray Serve: two replicas on this machine behind a front, and the real client."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import ray
import yaml  # type: ignore[import-untyped]
from openai.types.chat import ChatCompletionChunk
from ray import serve

from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.llm.stream_text import submit_text
from executorch_webgpu.ray import build_app
from executorch_webgpu.text.chat import encode_chat
from executorch_webgpu.text.tokenizer import Tokenizer

SIZES = {"max_rows": 64, "kv_pages": 160}
ARGUMENTS: dict[str, Any] = {"replicas": 2, "num_cpus": 0, "sizes": SIZES, "grace_seconds": 2, "page": False}
SCALING = Path(__file__).parents[2] / "docs" / "scaling.md"
SECONDS = 60  # much longer than anything takes


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def url(cluster: str, served_model: Path) -> Iterator[str]:
    assert cluster
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build_app({"source": str(served_model), **ARGUMENTS}))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=SECONDS) as client:
        yield client


@pytest.fixture(scope="module")
def wanted(served_model: Path) -> Iterator[Callable[[str, int], str]]:
    """The text of an engine alone after a user's message."""
    with (
        Runtime.get().load_program(served_model) as program,
        Engine(program, max_rows=64, kv_pages=160) as engine,
    ):
        tokenizer = Tokenizer.from_files(program.named_data)

        def text(message: str, count: int) -> str:
            tokens = encode_chat(tokenizer, [user(message)])
            pieces = submit_text(engine, tokenizer, tokens, SamplingParams(max_new_tokens=count))
            return "".join(piece.text for piece in pieces)

        yield text


def user(content: str) -> Any:
    return {"role": "user", "content": content}


def loads() -> list[int]:
    """How many requests each replica has that lives."""
    replicas = serve.get_deployment_handle("replicas", "default")
    answers = replicas.broadcast("record_routing_stats").results(return_exceptions=True)
    return sorted(int(stats["ongoing"]) for stats in answers if isinstance(stats, dict))


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def chunks(client: openai.OpenAI, message: str, count: int) -> Iterator[str]:
    stream: openai.Stream[ChatCompletionChunk] = client.chat.completions.create(
        model="model", messages=[user(message)], max_tokens=count, temperature=0, stream=True
    )
    for chunk in stream:
        yield chunk.choices[0].delta.content or ""


@pytest.mark.slow
def test_the_client_gets_what_an_engine_gives(client: openai.OpenAI, wanted: Callable[[str, int], str]) -> None:
    assert [model.id for model in client.models.list()] == ["model"]
    messages = [f"{number} hello" for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        texts = list(threads.map(lambda message: "".join(chunks(client, message, 12)), messages))
    assert texts == [wanted(message, 12) for message in messages]
    reply = client.chat.completions.create(model="model", messages=[user("hello")], max_tokens=5, temperature=0)
    assert reply.choices[0].message.content == wanted("hello", 5)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="model", prompt="hello", max_tokens=-1)


@pytest.mark.slow
def test_other_routes_and_bad_bodies_pass_through(url: str) -> None:
    assert httpx.get(f"{url}/health").json()["status"] == "ok"
    assert "openapi" in httpx.get(f"{url}/openapi.json").json()
    for body in (b"", b"{", b"\xff\xfe", b"[1]"):
        answer = httpx.post(f"{url}/v1/chat/completions", content=body)
        assert 400 <= answer.status_code < 500 and answer.json()["error"]["message"]
    large = httpx.post(f"{url}/v1/chat/completions", content=b"x" * (9 << 20))
    assert large.status_code == 413


@pytest.mark.slow
def test_turns_of_a_conversation_go_where_the_first_one_went(client: openai.OpenAI) -> None:
    """A replica that had not seen a conversation would have no tokens of it."""
    for number in range(6):
        messages = [user(f"{number} " + "hello " * 20)]
        for turn in range(3):
            reply = client.chat.completions.create(model="model", messages=messages, max_tokens=3)
            assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
            cached = reply.usage.prompt_tokens_details.cached_tokens or 0
            # All full pages of the turn before.
            assert cached >= 16 if turn else cached < 16
            messages += [{"role": "assistant", "content": str(reply.choices[0].message.content)}, user("more")]


@pytest.mark.slow
def test_requests_spread_and_end_with_their_clients(url: str, client: openai.OpenAI) -> None:
    streams = [chunks(client, f"{number} spread", 400) for number in range(4)]
    for stream in streams:
        next(stream)
    assert loads() == [2, 2]
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    wait(lambda: loads() == [0, 0])
    assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.slow
def test_a_replica_that_is_killed(client: openai.OpenAI, wanted: Callable[[str, int], str]) -> None:
    messages, count = [f"{number} killed" for number in range(4)], 300
    begun = threading.Barrier(len(messages) + 1)

    def text(message: str) -> str | openai.APIError:
        stream = chunks(client, message, count)
        first = next(stream) + next(stream)
        begun.wait(SECONDS)
        try:
            return first + "".join(stream)
        except openai.APIError as error:
            return error

    with ThreadPoolExecutor(len(messages)) as threads:
        texts = threads.map(text, messages)
        begun.wait(SECONDS)
        kill_a_replica()
        ended = list(texts)
    lost = [each for each in ended if isinstance(each, openai.APIError)]
    assert len(lost) == 2
    assert all("replica that was to answer has stopped; send the request again" in str(error) for error in lost)
    for message, each in zip(messages, ended, strict=True):
        assert isinstance(each, openai.APIError) or each == wanted(message, count)
    # At once, on the one that is left, and later on both.
    assert "".join(chunks(client, messages[0], 12)) == wanted(messages[0], 12)
    wait(lambda: loads() == [0, 0])


def kill_a_replica() -> None:
    names = [each for each in ray.util.list_named_actors(all_namespaces=True) if "#replicas#" in each["name"]]
    assert len(names) == 2
    ray.kill(ray.get_actor(names[0]["name"], namespace=names[0]["namespace"]))


@pytest.mark.slow
def test_a_config_file(cluster: str, url: str, served_model: Path, tmp_path: Path) -> None:
    """That of docs/scaling.md, without GPUs; it takes the place of the application that runs."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", SCALING.read_text(), re.M | re.S)
    made = yaml.safe_load(text)
    (application,) = made["applications"]
    assert application["args"].pop("num_gpus") == 1 and application["args"]["name"] == "my-model"
    application["args"] |= {"source": str(served_model), "num_cpus": 0, "page": False}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(made))
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(config), "--address", cluster]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as running:
        try:
            models: list[str] = []
            while models != ["my-model"]:
                assert running.poll() is None
                time.sleep(0.2)
                with suppress(httpx.HTTPError, ValueError):  # while one takes the place of the other
                    models = [each["id"] for each in httpx.get(f"{url}/v1/models").json().get("data", [])]
        finally:
            os.kill(running.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give a language model as source"),
        ({"source": "m", "replica": 2}, "replica: Extra inputs are not permitted"),
        ({"source": "m", "replicas": 0}, "replicas: Input should be greater than or equal to 1"),
        ({"source": "m", "loading": {"kv_cache": "f16"}}, "unexpected keyword argument 'kv_cache'"),
        ({"source": "m", "loading": {"kv_cache_dtype": "f8"}}, "f8"),
        ({"source": "m", "limits": {"max_run": 1}}, "max_run"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        build_app(arguments)
