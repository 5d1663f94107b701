"""Messages between two processes: all arrive, in order, and each side learns when the other one has closed."""

from __future__ import annotations

import threading
from multiprocessing import Pipe
from typing import Any

import pytest

from executorch_webgpu.serve.link import Link

SECONDS = 30  # far more than it takes


class End:
    """One side of a link, with what has come."""

    def __init__(self, connection: Any) -> None:
        self.received: list[Any] = []
        self.ended = threading.Event()
        self.link = Link(connection, self.received.extend, self.ended.set)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_closing_tells_the_other_side_after_the_last_message(count: int) -> None:
    here, there = map(End, Pipe())
    for number in range(count):
        here.link.send({"number": number})
    here.link.close()
    assert there.ended.wait(SECONDS)
    assert there.received == [{"number": number} for number in range(count)]
    there.link.close()


def test_both_sides_send_at_once() -> None:
    ends = list(map(End, Pipe()))
    for number in range(300):
        for end in ends:
            end.link.send(number)
    for end in ends:
        end.link.close()
    for end in ends:
        assert end.ended.wait(SECONDS)
        assert end.received == list(range(len(end.received)))


def test_a_side_that_is_gone_without_a_word_has_ended() -> None:
    connection, other = Pipe()
    end = End(connection)
    other.close()
    assert end.ended.wait(SECONDS)
    end.link.send("nobody hears this")
    end.link.close()
