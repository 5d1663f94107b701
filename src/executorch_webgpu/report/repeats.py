"""Layers that are alike: runs of calls that come several times, one after another."""

from __future__ import annotations

from collections.abc import Sequence
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


def repeats(labels: Sequence[object]) -> tuple[Repeat, ...]:
    """Where equal labels come in equal distances: runs that do not overlap, those that hide the most calls first found.

    The result is in the order of the calls.
    """
    numbers: dict[object, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)
    found: list[Repeat] = []
    ranges = [(0, len(codes))]
    while ranges:
        begin, end = ranges.pop()
        best = _best(codes[begin:end])
        if best is not None:
            found.append(Repeat(begin + best.start, best.period, best.count))
            ranges += [(begin, begin + best.start), (begin + best.end, end)]
    return tuple(sorted(found, key=lambda repeat: repeat.start))


def _best(codes: NDArray[np.int64]) -> Repeat | None:
    """The run that hides the most calls; of equal ones that with the shortest period."""
    best: Repeat | None = None
    most = LEAST_CALLS - 1
    for period in range(1, len(codes) // 2 + 1):
        if len(codes) - period <= most:  # no longer period can hide more
            break
        same = np.concatenate(([0], (codes[period:] == codes[:-period]).astype(np.int8), [0]))
        edges = np.diff(same)
        for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            count = (end - start) // period + 1
            if count > 1 and (count - 1) * period > most:
                most = int((count - 1) * period)
                best = Repeat(int(start), period, int(count))
    return best
