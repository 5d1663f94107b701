"""``et-webgpu serve --replicas`` as docs/scaling.md has it: Ray of its own, and HAProxy before the replicas."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from executorch_webgpu import Runtime
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.llm.stream_text import submit_text
from executorch_webgpu.text.chat import encode_chat
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.serve.serving import Serving, serving

SCALING = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.fixture(scope="module")
def server(served_model: Path) -> Iterator[Serving]:
    (command,) = re.findall(r"^et-webgpu serve (model.gguf .*)$", SCALING.read_text(), re.M)
    arguments = [str(served_model) if word == "model.gguf" else word for word in shlex.split(command)]
    small = ["--max-rows", "64", "--kv-pages", "160", "--no-page", "--grace-seconds", "1"]
    with serving([*arguments, *small]) as running:
        yield running
        assert running.stop(signal.SIGTERM) == 0


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def user(content: str) -> Any:
    return {"role": "user", "content": content}


@pytest.mark.slow
def test_texts_are_those_of_an_engine(client: openai.OpenAI, served_model: Path) -> None:
    messages = [f"{number} hello" for number in range(8)]

    def streamed(message: str) -> str:
        stream: openai.Stream[ChatCompletionChunk] = client.chat.completions.create(
            model="served", messages=[user(message)], max_tokens=20, temperature=0, stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with ThreadPoolExecutor(len(messages)) as threads:
        texts = list(threads.map(streamed, messages))
    with Runtime.get().load_program(served_model) as program, Engine(program, max_rows=64) as engine:
        tokenizer = Tokenizer.from_files(program.named_data)
        prompts = [encode_chat(tokenizer, [user(message)]) for message in messages]
        begun = [submit_text(engine, tokenizer, prompt, SamplingParams(max_new_tokens=20)) for prompt in prompts]
        assert texts == ["".join(piece.text for piece in pieces) for pieces in begun]


@pytest.mark.slow
def test_turns_of_a_conversation_go_where_the_first_one_went(client: openai.OpenAI) -> None:
    for number in range(6):
        messages = [user(f"{number} " + "hello " * 20)]
        for turn in range(2):
            reply = client.chat.completions.create(model="served", messages=messages, max_tokens=3)
            assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
            cached = reply.usage.prompt_tokens_details.cached_tokens or 0
            assert cached >= 16 if turn else cached < 16
            messages += [{"role": "assistant", "content": str(reply.choices[0].message.content)}, user("more")]


@pytest.mark.slow
def test_what_is_no_chat(server: Serving) -> None:
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
    assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["id"] == "served"
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=b"{")
    assert answer.status_code == 400 and answer.json()["error"]["message"]
    long = {"model": "served", "prompt": "hello " * 20_000, "max_tokens": 1}  # more than the balancer looks at
    answer = httpx.post(f"{server.url}/v1/completions", json=long)
    assert answer.status_code == 422 and "40000 tokens" in answer.json()["error"]["message"]
    assert httpx.get(f"{server.url}/health", headers={"host": "elsewhere.example"}).status_code == 403


@pytest.mark.slow
def test_a_replica_that_is_killed(server: Serving, client: openai.OpenAI) -> None:
    """Its streams are cut, and say so; the others go on, and so does the server."""
    messages, count = [f"{number} killed" for number in range(4)], 300

    def begun(message: str) -> Iterator[str]:
        stream: openai.Stream[ChatCompletionChunk] = client.chat.completions.create(
            model="served", messages=[user(message)], max_tokens=count, temperature=0, stream=True
        )
        return (chunk.choices[0].delta.content or "" for chunk in stream)

    time.sleep(3)  # until the router knows that the requests of other tests are over, and spreads these
    streams = [begun(message) for message in messages]
    for stream in streams:
        next(stream)
    os.kill(replicas_of(server)[0], signal.SIGKILL)
    lost = 0
    for stream in streams:
        try:
            assert len("".join(stream)) >= count - 1
        except (openai.APIError, httpx.TransportError):
            lost += 1
    assert 0 < lost < len(messages)
    for message in messages:
        assert len("".join(begun(message))) == count


def replicas_of(server: Serving) -> list[int]:
    """The processes that have an engine process, below the server."""
    command = ["ps", "-ww", "-eo", "pid=,ppid=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    processes: dict[int, tuple[int, str]] = {}
    for line in listed.splitlines():
        pid, parent, words = line.split(None, 2)
        processes[int(pid)] = int(parent), words

    def is_below(pid: int) -> bool:
        return pid == server.process.pid or (pid in processes and is_below(processes[pid][0]))

    return [parent for pid, (parent, words) in processes.items() if "serve.engine_process" in words and is_below(pid)]
