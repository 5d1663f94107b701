"""What HTTP costs: python -m bench.bench_http [MODEL] [--streams 1 8 64] [--steps 256] [--shape llama-3.2-1b]

The same texts in turns through ``et-webgpu serve`` and in an ``Engine`` of this process, on one GPU: the rate of all
texts from the first request to the last token, the time to the first token, and the rate of a text while it decodes.
Medians over ``--repeats`` rounds, and the ratios of HTTP to the engine. Clients are processes of their own, which read
streams of ``/v1/completions`` with as little work as possible.

First, ``--rounds`` times, one text of ``--round-steps`` tokens by each of three paths: an ``Engine`` of this process,
the engine process without HTTP, and HTTP. What a path adds is the median of the differences within rounds, with their
quartiles and the 95 % interval of the median: 2 % are told from nothing once that interval is narrower.

MODEL is what ``et-webgpu generate`` takes; without one, a program with the sizes of ``--shape``, random weights, and a
byte-level vocabulary of random words.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from bench.http_paths import Text, compare_paths
from bench.models import SHAPES, fitting_options, write_llama
from bench.vocabulary import random_tokenizer
from executorch_webgpu import Runtime
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.models.library import find_program
from executorch_webgpu.runtime import LoadOptions
from executorch_webgpu.serve.settings import EngineSettings

LATER = 0.3  # seconds in which all clients get ready for a round


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 8, 64], help="none: only the paths of one text")
    parser.add_argument("--rounds", type=int, default=200, help="of one text by each path; 0: none")
    parser.add_argument("--round-steps", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4, help="processes")
    parser.add_argument("--kv-cache", default="f16")
    parser.add_argument("--matmul-precision", default="high")
    args = parser.parse_args(argv)
    loading = LoadOptions(kv_cache_dtype=args.kv_cache, matmul_precision=args.matmul_precision)
    runtime = Runtime.get(args.engine, args.adapter)
    with program_file(args) as path, runtime.load_program(path) as program:
        if args.rounds:
            settings = EngineSettings(str(path), None, args.engine, args.adapter, loading, sizes(args))
            with Engine(program, loading, **sizes(args)) as engine:
                compare_paths(engine, settings, args)
        if args.streams:
            pool = ProcessPoolExecutor(args.clients, get_context("spawn"))
            with serving(path, args) as url, Engine(program, loading, **sizes(args)) as engine, pool:
                compare(engine, url, pool, args)


def sizes(args: argparse.Namespace) -> dict[str, Any]:
    most = max(args.streams, default=1)
    pages = most * -(-(args.prompt + max(args.steps, args.round_steps)) // 16) + 1
    return {"max_sequences": most, "max_rows": max(256, most), "kv_pages": pages}


@contextmanager
def program_file(args: argparse.Namespace) -> Iterator[Path]:
    if args.model is not None:
        yield find_program(args.model)
        return
    with TemporaryDirectory() as folder:
        path, config = Path(folder) / "model.pte", SHAPES[args.shape]
        options = fitting_options(config, args.prompt, args.prompt + max(args.steps, args.round_steps) + 1)
        write_llama(path, config, options, tokenizer=random_tokenizer(config.vocab))
        yield path


@contextmanager
def serving(path: Path, args: argparse.Namespace) -> Iterator[str]:
    command = [sys.executable, "-m", "executorch_webgpu", "serve", str(path), "--port", "0", "--no-page"]
    command += ["--kv-cache", args.kv_cache, "--matmul-precision", args.matmul_precision]
    command += [word for name, value in sizes(args).items() for word in (f"--{name.replace('_', '-')}", str(value))]
    for name in ("engine", "adapter"):
        if (value := getattr(args, name)) is not None:
            command += [f"--{name}", value]
    with started(command) as url:
        yield url


@contextmanager
def started(command: Sequence[str]) -> Iterator[str]:
    """The address of a server that a command starts, once it listens; its log is read and dropped."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"Listening at (http://\S+);", line):
                print(f"the server is up after {time.perf_counter() - begun:.2f} s", file=sys.stderr)
                drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
                yield found[1]
                drain.terminate()
                return
        raise RuntimeError("".join(said))
    finally:
        process.terminate()
        process.wait()


def compare(engine: Engine, url: str, pool: ProcessPoolExecutor, args: argparse.Namespace) -> None:
    print(f"{'texts':>6}{'':>8}{'tokens/s':>10}{'first ms':>10}{'p99':>8}{'decode/s':>10}   spread of tokens/s")
    for count in args.streams:
        rounds: dict[str, list[list[Text]]] = {"engine": [], "http": []}
        for repeat in range(args.repeats + 1):  # the first one warms up
            random = np.random.default_rng([count, repeat])
            prompts = random.integers(0, min(engine.vocab_size, 30000), (count, args.prompt)).tolist()
            for name, texts in (
                ("http", over_http(url, pool, prompts, args)),
                ("engine", alone(engine, prompts, args)),
            ):
                assert all(text.tokens == args.steps for text in texts), [text.tokens for text in texts]
                if repeat:
                    rounds[name].append(texts)
        found = {name: figures(each) for name, each in rounds.items()}
        for name, (rates, first, late, decode) in found.items():
            spread = f"{min(rates):.0f} to {max(rates):.0f}"
            print(f"{count:>6}{name:>8}{median(rates):>10.0f}{first:>10.2f}{late:>8.2f}{decode:>10.1f}   {spread}")
        (rates, first, _, decode), (own_rates, own_first, _, own_decode) = found["http"], found["engine"]
        ratio, slower = median(rates) / median(own_rates), own_decode / decode - 1
        print(f"       ratio {ratio:.3f}; first token {first - own_first:+.2f} ms; a text's decode time {slower:+.1%}")


def figures(rounds: Sequence[Sequence[Text]]) -> tuple[list[float], float, float, float]:
    """Rates of all texts by round, the time to the first token in ms (median and 99th percentile), a text's rate."""
    rates = [
        sum(text.tokens for text in texts) / (max(t.last for t in texts) - min(t.asked for t in texts))
        for texts in rounds
    ]
    firsts = [1e3 * (text.first - text.asked) for texts in rounds for text in texts]
    decode = median((text.tokens - 1) / (text.last - text.first) for texts in rounds for text in texts)
    return rates, median(firsts), float(np.quantile(firsts, 0.99)), decode


def alone(engine: Engine, prompts: Sequence[list[int]], args: argparse.Namespace) -> list[Text]:
    streams = [engine.submit(prompt, SamplingParams(args.steps), end_tokens=()) for prompt in prompts]
    counts = [sum(1 for _ in stream) for stream in streams]
    times = [stream.times for stream in streams]
    return [Text(t.submitted, t.tokens[0], t.tokens[-1], n) for t, n in zip(times, counts, strict=True)]


def over_http(
    url: str, pool: ProcessPoolExecutor, prompts: Sequence[list[int]], args: argparse.Namespace
) -> list[Text]:
    start = time.time() + LATER
    groups = [list(prompts[i :: args.clients]) for i in range(args.clients)]
    jobs = [pool.submit(client, url, group, args.steps, start) for group in groups if group]
    return [text for job in jobs for text in job.result()]


def client(url: str, prompts: Sequence[list[int]], steps: int, start: float) -> list[Text]:
    """The texts of one process, all asked for at ``start``."""

    async def run() -> list[Text]:
        return await asyncio.gather(*(ask(url, prompt, steps, start) for prompt in prompts))

    return asyncio.run(run())


async def ask(url: str, prompt: list[int], steps: int, start: float) -> Text:
    """One stream. Chunks are looked into at the end only."""
    where = urlsplit(url)
    body = {"prompt": prompt, "max_tokens": steps, "temperature": 0, "ignore_eos": True, "stream": True}
    content = json.dumps({**body, "stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    await asyncio.sleep(start - time.time())
    asked = time.time()
    writer.write(f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content)
    first = last = 0.0
    received = bytearray()
    while chunk := await reader.read(1 << 16):
        received += chunk
        if b'"text":' in chunk:
            last = time.time()
            first = first or last
    writer.close()
    tokens = re.search(rb'"completion_tokens":(\d+)', received)
    if tokens is None:
        raise RuntimeError(received.decode("utf-8", "replace")[:2000])
    return Text(asked, first, last, int(tokens[1]))


if __name__ == "__main__":
    main()
