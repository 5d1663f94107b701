"""Messages arrive in order, whole, and whoever ends is noticed: between threads and an event loop."""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
import threading
from typing import Any

import pytest

from executorch_webgpu.serve.link import Frames, Link, LoopLink, frame, receive_one, start_linked


# uvloop is a part of the server, but for Windows, where there is none.
@pytest.fixture(params=["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"])
def run_in(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param).run


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_messages_go_both_ways_until_the_loop_closes(run_in: Any) -> None:
    async def run() -> None:
        one, other = socket.socketpair()
        seen: dict[str, list[Any]] = {"threads": [], "loop": []}
        ended = {"threads": threading.Event(), "loop": threading.Event()}
        threads = Link(one, seen["threads"].extend, ended["threads"].set)
        loop = await LoopLink.open(other, seen["loop"].extend, ended["loop"].set)
        for i in range(1000):
            threads.send((i, "x" * (i % 7)))
            loop.send([i])
        loop.close()
        await until(ended["threads"].is_set)
        assert seen["threads"] == [[i] for i in range(1000)]
        await until(ended["loop"].is_set)
        assert seen["loop"] == [(i, "x" * (i % 7)) for i in range(1000)][: len(seen["loop"])]
        threads.send("to nobody")  # which is no error
        loop.send("to nobody")
        one.close()

    run_in(run())


def test_a_side_that_is_gone_ends_the_other(run_in: Any) -> None:
    async def run() -> None:
        one, other = socket.socketpair()
        ended = threading.Event()
        Link(one, lambda messages: None, ended.set)
        other.close()
        await until(ended.is_set)
        one.close()
        one, other = socket.socketpair()
        ended.clear()
        await LoopLink.open(one, lambda messages: None, ended.set)
        other.close()
        await until(ended.is_set)

    run_in(run())


@pytest.mark.parametrize("from_loop", [True, False])
def test_large_messages_do_not_hold_up_the_sender(from_loop: bool, run_in: Any) -> None:
    async def run() -> None:
        one, other = socket.socketpair()
        seen: list[bytes] = []
        if from_loop:
            sender: Link | LoopLink = await LoopLink.open(one, lambda messages: None, lambda: None)
        else:
            sender = Link(one, lambda messages: None)
        for _ in range(8):
            sender.send(b"x" * (1 << 20))  # more than a socket holds, and nobody reads
        if from_loop:
            Link(other, seen.extend)
        else:
            reader = await LoopLink.open(other, seen.extend, lambda: None)
        await until(lambda: len(seen) == 8)
        assert {len(each) for each in seen} == {1 << 20}
        if not from_loop:
            reader.abort()

    run_in(run())


def test_frames_come_in_any_pieces() -> None:
    messages: list[list[Any]] = [["a", 1], [], ["b" * 300]]
    data = b"".join(map(frame, messages)) + bytes(8) + b"what comes after the end"
    for size in (1, 7, 8, 9, 100, 10_000):
        frames = Frames()
        found = [each for at in range(0, len(data), size) for each in frames.push(data[at : at + size])]
        assert found == messages
        assert frames.ended


def test_a_message_that_cannot_be_pickled(run_in: Any) -> None:
    """A loop's sender is told; of threads the connection ends, so that nobody waits for what will never come."""

    async def run() -> None:
        one, other = socket.socketpair()
        seen: list[Any] = []
        ended = threading.Event()
        threads = Link(one, seen.extend)
        loop = await LoopLink.open(other, lambda messages: None, ended.set)
        with pytest.raises((AttributeError, TypeError)):
            loop.send(lambda: None)
        loop.send("and this can be")
        await until(lambda: seen)
        assert seen == ["and this can be"]
        threads.send(lambda: None)
        await until(ended.is_set)
        one.close()

    run_in(run())


def test_a_process_gets_its_end() -> None:
    program = (
        "import sys; from executorch_webgpu.serve.link import frame, inherited, receive_one;"
        "end = inherited(sys.argv[1]); end.sendall(frame([receive_one(end) * 2]))"
    )
    process, end = start_linked([sys.executable, "-c", program])
    with end:
        end.sendall(frame([21]))
        assert receive_one(end) == 42
        assert process.wait(30) == 0
        with pytest.raises(EOFError):
            receive_one(end)  # nobody else holds the other end
