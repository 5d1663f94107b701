"""Messages arrive in order, whole, and whoever ends is noticed."""

from __future__ import annotations

import threading
from multiprocessing import Pipe
from typing import Any

from executorch_webgpu.serve.link import Link


def test_messages_go_both_ways_until_one_side_closes() -> None:
    one, other = Pipe()
    seen: dict[str, list[Any]] = {"one": [], "other": []}
    ended = {"one": threading.Event(), "other": threading.Event()}
    first = Link(one, seen["one"].extend, ended["one"].set)
    second = Link(other, seen["other"].extend, ended["other"].set)
    for i in range(1000):
        first.send((i, "x" * (i % 7)))
        second.send([i])
    first.close()
    assert ended["other"].wait(20)
    assert seen["other"] == [(i, "x" * (i % 7)) for i in range(1000)]
    second.close()
    assert ended["one"].wait(20)
    assert seen["one"] == [[i] for i in range(1000)]
    first.send("to nobody")  # which is no error


def test_a_side_that_is_gone_ends_the_other() -> None:
    one, other = Pipe()
    ended = threading.Event()
    link = Link(one, lambda messages: None, ended.set)
    other.close()
    assert ended.wait(20)
    link.close()


def test_large_messages_do_not_hold_up_the_sender() -> None:
    one, other = Pipe()
    link = Link(one, lambda messages: None)
    for _ in range(8):
        link.send(b"x" * (1 << 20))  # more than a pipe holds, and nobody reads
    seen: list[bytes] = []
    whole = threading.Event()

    def receive(messages: list[bytes]) -> None:
        seen.extend(messages)
        if len(seen) == 8:
            whole.set()

    Link(other, receive)
    assert whole.wait(30)
    link.close()
