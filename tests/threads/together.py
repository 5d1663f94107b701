"""Runs jobs in threads, all at once: each ends in time, with its result or with one of the errors that it may have.

``ET_WEBGPU_THREAD_ROUNDS`` multiplies how many seeds every test has.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from executorch_webgpu import Error

ROUNDS = int(os.environ.get("ET_WEBGPU_THREAD_ROUNDS", "1"))
SECONDS = 120.0  # after which a job hangs

Job = Callable[[], Any]


def seeds(count: int) -> pytest.MarkDecorator:
    """Runs a test several times, each with another ``random``."""
    return pytest.mark.parametrize("random", range(count * ROUNDS), indirect=True)


@contextmanager
def switching(random: Random) -> Iterator[None]:
    """Python changes threads more often, or as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(random.choice([1e-6, 1e-5, 1e-4, before]))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def together(random: Random, jobs: Sequence[Job], refusals: tuple[type[Error], ...] = ()) -> list[Any]:
    """The jobs' results, or the errors among ``refusals`` that ended them. Anything else fails the test."""
    results: list[Any] = [None] * len(jobs)
    unexpected: list[BaseException] = []
    begin = threading.Barrier(len(jobs))

    def run(index: int) -> None:
        begin.wait()
        try:
            results[index] = jobs[index]()
        except refusals as error:
            results[index] = error
        except BaseException as error:
            unexpected.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(jobs))]
    with switching(random):
        for thread in threads:
            thread.start()
        until = time.monotonic() + SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
        pytest.fail("a thread hangs; see where on stderr")
    if unexpected:
        raise unexpected[0]
    return results


def pause(random: Random, most: float = 0.02) -> None:
    """Somewhere in the middle of what others do."""
    time.sleep(random.random() * most)
