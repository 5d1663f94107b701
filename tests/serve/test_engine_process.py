"""The engine process dies, cannot start, or is told to end: clients and commands learn it in a sentence."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from executorch_webgpu.errors import Error
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.serve.engine_client import EngineClient
from executorch_webgpu.serve.errors import ApiError
from executorch_webgpu.serve.settings import EngineSettings
from tests.serve.serving import Serving, serving, write_tiny_model
from tests.text.tiny_vocabulary import write_bpe

FOREVER = 900  # tokens: much longer than it takes to kill a process


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("process"))


@pytest.fixture(scope="module")
def server(program: Path) -> Iterator[Serving]:
    with serving([str(program), "--max-sequences", "4", "--no-page"]) as server:
        yield server


def engine_process(server: Serving) -> int:
    found = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True)
    (pid,) = found.stdout.split()
    return int(pid)


def test_a_dead_engine_ends_streams_with_an_error_and_is_started_again(server: Serving) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    stream = client.completions.create(
        model="tiny", prompt="hello", max_tokens=FOREVER, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    os.kill(engine_process(server), signal.SIGKILL)
    with pytest.raises(openai.APIError, match="the engine has stopped; it is being started again"):
        for _ in stream:
            pass
    refused = httpx.get(f"{server.url}/health")
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    with pytest.raises(openai.InternalServerError, match="the engine has stopped"):
        client.completions.create(model="tiny", prompt="hello", max_tokens=1)
    end = time.monotonic() + 60
    while httpx.get(f"{server.url}/health").status_code != 200:
        assert time.monotonic() < end, "the engine was not started again"
        time.sleep(0.2)
    again = client.completions.create(model="tiny", prompt="hello", max_tokens=3, temperature=0)
    assert again.usage is not None
    assert again.usage.completion_tokens == 3


def test_a_server_that_is_told_to_stop_finishes_its_streams(program: Path) -> None:
    with serving([str(program), "--no-page"]) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        stream = client.completions.create(
            model="tiny", prompt="hello", max_tokens=300, stream=True, extra_body={"ignore_eos": True}
        )
        pieces = iter(stream)
        next(pieces)
        server.process.send_signal(signal.SIGTERM)
        engine = engine_process(server)
        reasons = [piece.choices[0].finish_reason for piece in pieces if piece.choices]
        assert reasons[-1] == "length"
        assert server.process.wait(60) == 0
        end = time.monotonic() + 20
        while Path(f"/proc/{engine}").exists():
            assert time.monotonic() < end, "the engine process is left"
            time.sleep(0.1)


def test_a_killed_server_leaves_no_engine_process(program: Path) -> None:
    with serving([str(program), "--no-page"]) as server:
        engine = engine_process(server)
        server.process.kill()
        server.process.wait()
        end = time.monotonic() + 20
        while Path(f"/proc/{engine}").exists():
            assert time.monotonic() < end, "the engine process is left"
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--adapter", "no such adapter"], "no such adapter"),
        (["--kv-pages", "0"], "kv-pages"),
        (["--api-key-file", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_a_sentence(program: Path, arguments: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "executorch_webgpu", "serve", str(program), "--port", "0", *arguments]
    path = os.pathsep.join(sys.path)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=100)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    from bench.models import SHAPES, write_llama

    write_llama(tmp_path / "bare.pte", SHAPES["tiny"])
    command = [sys.executable, "-m", "executorch_webgpu", "serve", str(tmp_path / "bare.pte"), "--port", "0"]
    path = os.pathsep.join(sys.path)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=100)
    assert done.returncode == 2
    assert "no tokenizer inside" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_without_a_tokenizer_is_given_one(tmp_path: Path) -> None:
    """As stock exports have none. Prompts, answers and grammars go by it."""
    from bench.models import SHAPES, write_llama

    write_llama(tmp_path / "bare.pte", SHAPES["tiny"])
    vocabulary = write_bpe(tmp_path / "vocabulary.gguf")
    with serving([str(tmp_path / "bare.pte"), "--tokenizer", str(vocabulary), "--no-page"]) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        done = client.completions.create(
            model="bare", prompt="hello", max_tokens=9, extra_body={"guided_choice": ["hell", "12"]}
        )
        assert done.choices[0].text in ("hell", "12")
        assert httpx.post(f"{server.url}/tokenize", json={"prompt": "hello"}).json()["count"] == 1


def test_texts_of_a_client(program: Path) -> None:
    """Cancelled ones free their pages; a client that closes ends the others."""

    async def run() -> None:
        client = EngineClient(EngineSettings(str(program)))
        await client.start()
        try:
            first = client.submit([5, 6, 7], SamplingParams(FOREVER), ())
            second = client.submit([5, 6, 7], SamplingParams(FOREVER), ())
            await first.accepted()
            await second.accepted()
            assert (await first.next()).tokens
            first.cancel()
            while (await client.load()).running != 1:
                await asyncio.sleep(0.05)
            refused = client.submit([10**6], SamplingParams(1), ())
            with pytest.raises(ApiError, match="not in the vocabulary"):
                while True:
                    await refused.next()
        finally:
            await client.close()
        with pytest.raises(ApiError, match="shutting down"):
            while True:
                await second.next()
        with pytest.raises(ApiError):
            client.submit([1], SamplingParams(1), ())

    asyncio.run(run())


def test_a_client_whose_engine_cannot_start_says_why(program: Path) -> None:
    async def run() -> None:
        client = EngineClient(EngineSettings(str(program), sizes={"max_sequences": 9, "max_rows": 2}))
        try:
            with pytest.raises(Error, match="an engine of 9 sequences and 2 rows"):
                await client.start()
        finally:
            await client.close()

    asyncio.run(run())
