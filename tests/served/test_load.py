"""64 streams at once, of whose clients some are slow and some vanish: none hangs, is lost or leaks, all go on alike."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest

from tests.serve.loopback import wait_until

from .served import Served

pytestmark = pytest.mark.slow

LIVE, SLOW, VANISHING = 40, 12, 12
TOKENS = 120


@dataclass
class Client:
    """One stream: its text as far as it has come. A token is a letter, but for a few, so letters tell its progress."""

    seed: int
    kind: str
    events: int = 0
    parts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    done: bool = False

    async def run(self, served: Served, first_done: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        try:
            writer.write(served.request("/v1/completions", body(self.seed)))
            async for line in reader:
                if not line.startswith(b"data: "):
                    continue
                if line.strip() == b"data: [DONE]":
                    self.done = True
                    first_done.set()
                    break
                (choice,) = json.loads(line.removeprefix(b"data: "))["choices"]
                self.events += 1
                self.parts.append(choice["text"])
                self.finish_reason = choice["finish_reason"] or self.finish_reason
                if self.kind == "slow":
                    await asyncio.sleep(0.05)
                if self.kind == "vanishing" and self.events == 1 + self.seed % 7:
                    writer.transport.abort()
                    return
        finally:
            writer.close()


def body(seed: int) -> dict[str, object]:
    fields = {
        "prompt": f"prompt {seed % 5}",
        "max_tokens": TOKENS,
        "temperature": 1.0,
        "seed": seed,
        "ignore_eos": True,
    }
    return {**fields, "stream": True}


async def load(served: Served, clients: list[Client]) -> list[int]:
    """Run all clients. Returns how much came to each live one from when all of them had begun to when one was done."""
    first_done = asyncio.Event()
    live = [client for client in clients if client.kind == "live"]

    def lengths() -> list[int]:
        return [len("".join(client.parts)) for client in live]

    async def look() -> list[int]:
        while not all(client.parts for client in live):
            await asyncio.sleep(0.001)
        begin = lengths()
        await first_done.wait()
        return [now - before for now, before in zip(lengths(), begin, strict=True)]

    looking = asyncio.create_task(look())
    async with asyncio.timeout(120):
        await asyncio.gather(*(client.run(served, first_done) for client in clients))
        return await looking


def test_64_streams_with_slow_and_vanishing_clients(served: Served) -> None:
    kinds = ["live"] * LIVE + ["slow"] * SLOW + ["vanishing"] * VANISHING
    clients = [Client(seed, kind) for seed, kind in enumerate(kinds)]
    clients.sort(key=lambda client: client.seed * 37 % 64)  # kinds are mixed
    wait_until(served.at_rest)
    files, threads = served.files(), served.tasks()
    progress = asyncio.run(load(served, clients))

    # Nothing is lost: each stream that was read to its end is the text that its seed gives alone.
    for client in clients:
        if client.kind != "vanishing":
            assert client.done and client.finish_reason == "length", client
    for client in clients[::8]:
        alone = {**body(client.seed), "stream": False}
        text = served.post("/v1/completions", alone).json()["choices"][0]["text"]
        assert text.startswith("".join(client.parts)) if client.kind == "vanishing" else text == "".join(client.parts)
    # Fair: while all of them went on, none got less than half of what another one got.
    assert len(progress) == LIVE
    assert min(progress) >= max(progress) / 2 > 0, sorted(progress)
    # Nothing leaks.
    wait_until(served.at_rest, 60)
    wait_until(lambda: served.files() <= files and served.tasks() <= threads, 60)
