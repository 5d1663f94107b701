"""Layers that are alike: runs of calls that come several times, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_CALLS = 4  # that folding a run must hide


@dataclass(frozen=True)
class Repeat:
    """``count`` times ``period`` calls, from ``start`` on, that are alike from time to time."""

    start: int
    period: int
    count: int

    @property
    def end(self) -> int:
        """The place after the last call."""
        return self.start + self.period * self.count


def repeats(labels: Sequence[object], accepts: Callable[[Repeat], bool] = lambda _: True) -> tuple[Repeat, ...]:
    """Where equal labels come in equal distances: runs that do not overlap, those that hide the most calls first.

    ``accepts``: whether such a run counts. The result is in the order of the calls.
    """
    numbers: dict[object, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)
    found: list[Repeat] = []
    ranges = [(0, len(codes))]
    while ranges:
        begin, end = ranges.pop()
        best = next((each for each in _candidates(codes[begin:end], begin) if accepts(each)), None)
        if best is not None:
            found.append(best)
            ranges += [(begin, best.start), (best.end, end)]
    return tuple(sorted(found, key=lambda repeat: repeat.start))


def _candidates(codes: NDArray[np.int64], begin: int) -> list[Repeat]:
    """The longest runs of each period, those that hide the most calls first, and of equal ones the shortest period."""
    found: list[Repeat] = []
    for period in range(1, len(codes) // 2 + 1):
        same = np.concatenate(([0], (codes[period:] == codes[:-period]).astype(np.int8), [0]))
        edges = np.diff(same)
        for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            count = int(end - start) // period + 1
            if (count - 1) * period >= LEAST_CALLS:
                found.append(Repeat(begin + int(start), period, count))
    return sorted(found, key=lambda each: (-(each.count - 1) * each.period, each.period, each.start))
