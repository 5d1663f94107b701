"""Real servers for tests: the command itself, in a process of its own, with a tiny model of random weights."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from tests.models.tiny_gguf import TinyGguf
from tests.text.tiny_vocabulary import BPE_TOKENS, CHATML, write_bpe

START_SECONDS = 120  # much longer than it takes, as other tests may be running


@dataclass
class Serving:
    """A server that runs. ``url``: where; ``output``: what it has said."""

    url: str
    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)

    def stop(self, sign: int = signal.SIGTERM) -> int:
        """End it. Returns the exit code."""
        self.process.send_signal(sign)
        return self.process.wait(60)

    def metric(self, name: str) -> float:
        """The value of a metric that has no labels."""
        text = httpx.get(f"{self.url}/metrics").text
        found = re.search(rf"^etwebgpu_{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, f"there is no metric {name}"
        return float(found[1])

    def wait_until_idle(self, seconds: float = 60) -> None:
        """Wait until no request runs, and no text has pages."""
        end = time.monotonic() + seconds
        while any(self.metric(name) for name in ("requests_running", "texts_running", "kv_cache_pages_used")):
            assert time.monotonic() < end, "requests run, though no client is there"
            time.sleep(0.2)


@contextmanager
def serving(arguments: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[Serving]:
    """A server of ``et-webgpu serve`` at a free port, once it listens."""
    command = [sys.executable, "-m", "executorch_webgpu", "serve", *arguments, "--port", "0"]
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | (environment or {}),
    )
    output: list[str] = []
    listening = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            output.append(line)
            if "Listening at" in line:
                listening.set()
        listening.set()

    reader = threading.Thread(target=listen, daemon=True)
    reader.start()
    try:
        assert listening.wait(START_SECONDS), "the server did not start in time"
        found = re.search(r"Listening at (http://\S+);", "".join(output))
        assert found is not None, "".join(output)
        yield Serving(found[1], process, output)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(10)


def write_tiny_model(folder: Path, context_len: int = 1024, template: str = CHATML) -> Path:
    """A program with a byte-level vocabulary and a chat template, whose answers are random bytes."""
    weights = folder / "tiny.gguf"
    TinyGguf(layers=1, vocab=len(BPE_TOKENS), context_len=context_len).write(weights)
    program = folder / "tiny.pte"
    options = LlamaOptions("f32", max_seq_len=33, max_context_len=context_len)
    convert(weights, program, options, tokenizer=write_bpe(folder / "vocabulary.gguf", template=template))
    return program
