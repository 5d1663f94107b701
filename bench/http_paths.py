"""The same text by three paths, in turns: an engine of this process, the engine process, and HTTP before that.

Differences of one round are taken before their median is, so that a machine whose speed drifts by a tenth still tells
two paths apart by a hundredth.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import comb
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.serve.settings import EngineSettings, ServerSettings

PATHS = ("engine", "process", "http")
PAUSE = 0.01  # seconds before each text: all paths begin on a machine that is as idle
WARM_UP = 6  # rounds that do not count


@dataclass(frozen=True)
class Text:
    """When a text was asked for, when its first and last tokens came, on one clock, and how many there were."""

    asked: float
    first: float
    last: float
    tokens: int

    @property
    def first_ms(self) -> float:
        """Time to the first token, in ms."""
        return 1e3 * (self.first - self.asked)

    @property
    def token_ms(self) -> float:
        """Time between two tokens, in ms."""
        return 1e3 * (self.last - self.first) / max(1, self.tokens - 1)


@dataclass(frozen=True)
class Spread:
    """Of numbers: their median, their quartiles, and an interval that has the true median with 95 %."""

    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float]

    def __str__(self) -> str:
        (low, high), (least, most) = self.quartiles, self.interval
        return f"{self.median:+.3f} (quartiles {low:+.3f} to {high:+.3f}; 95 % {least:+.3f} to {most:+.3f})"


def spread(values: Sequence[float]) -> Spread:
    """The interval is between two of the values, by the binomial distribution: it supposes nothing of theirs."""
    ordered, count = sorted(values), len(values)
    place = 0
    outside = 2 * 0.5**count  # how likely the true median is not between the values at ``place`` from each end
    while place + 1 < count // 2 and outside + 2 * comb(count, place + 1) * 0.5**count <= 0.05:
        place += 1
        outside += 2 * comb(count, place) * 0.5**count
    low, _, high = quantiles(ordered, n=4)
    return Spread(median(ordered), (low, high), (ordered[place], ordered[count - 1 - place]))


def compare_paths(engine: Engine, settings: EngineSettings, args: argparse.Namespace) -> None:
    """One text at a time by each path, ``args.rounds`` times, and what each path adds to the one within it."""
    found: dict[str, list[Text]] = {path: [] for path in PATHS}
    with _front(settings) as (front, url), _asker(url) as asker:
        for index in range(-WARM_UP, args.rounds):
            random = np.random.default_rng([1, index + WARM_UP])
            prompts = random.integers(0, min(engine.vocab_size, 30000), (len(PATHS), args.prompt)).tolist()
            for turn in range(len(PATHS)):  # each path is first, second and third equally often
                path = PATHS[(turn + index) % len(PATHS)]
                prompt = prompts[turn]
                if path == "engine":
                    text = alone(engine, prompt, args.round_steps)
                else:
                    other = front if path == "process" else asker
                    other.send((prompt, args.round_steps))
                    text = other.recv()
                assert text.tokens == args.round_steps, (path, text)
                if index >= 0:
                    found[path].append(text)
    for path, texts in found.items():
        firsts, gaps = [text.first_ms for text in texts], [text.token_ms for text in texts]
        print(f"{path:>10}: first token {median(firsts):.2f} ms, then {median(gaps):.3f} ms a token")
    for path, within in (("process", "engine"), ("http", "process"), ("http", "engine")):
        pairs = list(zip(found[path], found[within], strict=True))
        print(f"{path} - {within}, by rounds:")
        print(f"    first token, ms: {spread([one.first_ms - two.first_ms for one, two in pairs])}")
        print(f"    decode time, % : {spread([100 * (one.token_ms / two.token_ms - 1) for one, two in pairs])}")


def alone(engine: Engine, prompt: Sequence[int], steps: int) -> Text:
    """A text of an engine in this process, by the clock of the thread that reads it."""
    time.sleep(PAUSE)
    asked = time.perf_counter()
    first = last = 0.0
    count = 0
    for _ in engine.submit(prompt, SamplingParams(steps), end_tokens=()):
        last = time.perf_counter()
        first = first or last
        count += 1
    return Text(asked, first, last, count)


# -- the HTTP process, and one text of the engine process without HTTP ----------------------------------------------


@contextmanager
def _front(settings: EngineSettings) -> Iterator[tuple[Connection, str]]:
    """A process that is a server, and does texts of its engine process without HTTP; and the server's address."""
    with _process(_serve, settings) as connection:
        yield connection, connection.recv()


@contextmanager
def _asker(url: str) -> Iterator[Connection]:
    """A process that asks a server for texts."""
    with _process(_ask_all, url) as connection:
        yield connection


@contextmanager
def _process(target: Any, argument: Any) -> Iterator[Connection]:
    context = get_context("spawn")
    connection, others = context.Pipe()
    process = context.Process(target=target, args=(others, argument))
    process.start()
    others.close()
    try:
        yield connection
    finally:
        connection.close()
        process.join(20)
        if process.is_alive():
            process.kill()


def _serve(connection: Connection, settings: EngineSettings) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serving(connection, settings))
    else:
        uvloop.run(_serving(connection, settings))


async def _serving(connection: Connection, settings: EngineSettings) -> None:
    """What ``et-webgpu serve`` runs; the connection asks for texts beside it, until it is closed."""
    from executorch_webgpu.serve.app import build_app
    from executorch_webgpu.serve.engine_client import EngineClient
    from executorch_webgpu.serve.limits import Limits
    from executorch_webgpu.serve.listen import make_server
    from executorch_webgpu.serve.metrics import Metrics
    from executorch_webgpu.serve.shutdown import Draining

    client, metrics, draining, limits = EngineClient(settings), Metrics(), Draining(), Limits()
    await client.start()
    app = build_app(ServerSettings(settings, page=False), client, metrics=metrics, draining=draining, limits=limits)
    server = make_server(app, limits, metrics, draining, log_level="warning", host="127.0.0.1", port=0)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        connection.send(f"http://127.0.0.1:{port}")
        while True:
            prompt, steps = await asyncio.to_thread(connection.recv)
            connection.send(await _of_process(client, prompt, steps))
    except EOFError:
        pass
    finally:
        server.should_exit = True
        await serving
        await client.close()


async def _of_process(client: Any, prompt: list[int], steps: int) -> Text:
    await asyncio.sleep(PAUSE)
    asked = time.perf_counter()
    first = last = 0.0
    count, end = 0, None
    text = client.submit(prompt, SamplingParams(steps), ())
    await text.accepted()
    while end is None:
        came = await text.next()
        if came.tokens:
            last = time.perf_counter()
            first = first or last
        count, end = count + len(came.tokens), came.end
    return Text(asked, first, last, count)


def _ask_all(connection: Connection, url: str) -> None:
    gc.disable()
    try:
        while True:
            prompt, steps = connection.recv()
            connection.send(_ask(url, prompt, steps))
    except EOFError:
        pass


def _ask(url: str, prompt: list[int], steps: int) -> Text:
    """One stream, with as little work as possible. Chunks are looked into at the end only."""
    where = urlsplit(url)
    assert where.hostname is not None and where.port is not None
    body = {"prompt": prompt, "max_tokens": steps, "temperature": 0, "ignore_eos": True, "skip_special_tokens": False}
    content = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content
    with socket.create_connection((where.hostname, where.port)) as connected:
        time.sleep(PAUSE)
        asked = time.perf_counter()
        connected.sendall(request)
        first = last = 0.0
        received = bytearray()
        while chunk := connected.recv(1 << 16):
            received += chunk
            if b'"text":' in chunk:
                last = time.perf_counter()
                first = first or last
    tokens = re.search(rb'"completion_tokens":(\d+)', received)
    if tokens is None:
        raise RuntimeError(received.decode("utf-8", "replace")[:2000])
    return Text(asked, first, last, int(tokens[1]))
