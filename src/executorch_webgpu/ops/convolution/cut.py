"""How a product of matrices is cut into tiles, and K into parts: as it should take the least time.

Large tiles load less for each product, but of a small image there are fewer than a device has room for. Several
workgroups then share a tile, each with a part of K, at the cost of a dispatch that adds up their sums. The estimate
knows these things only; its numbers are those of an H100, where choices matter most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..shapes import ceil_div
from .sums import split_size

T = TypeVar("T")
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


@dataclass(frozen=True)
class Estimate:
    """What a device takes, in microseconds.

    ``slots`` workgroups run at a time, two on each multiprocessor; half of them, alone, take ``alone`` of the time.
    ``start``: of a workgroup, for all but its steps. ``add``: of the dispatch that adds up sums, but for reading them
    at ``add_rate`` bytes a microsecond.
    """

    slots: int = 264
    alone: float = 0.6
    start: float = 2.0
    add: float = 3.0
    add_rate: float = 4e6

    def rounds(self, workgroups: int) -> float:
        full, rest = divmod(workgroups, self.slots)
        return full + (0 if rest == 0 else self.alone if 2 * rest <= self.slots else 1)


H100 = Estimate()


@dataclass(frozen=True)
class Option(Generic[T]):
    """A tile that can be taken: ``step`` microseconds along K, if all slots are busy, and how many there are."""

    tile: T
    step: float
    workgroups: int
    all_steps: int


@dataclass(frozen=True)
class Cut(Generic[T]):
    """``splits`` workgroups share a tile, each of at most ``steps`` along K."""

    tile: T
    steps: int
    splits: int
    microseconds: float


def best_cut(
    options: Iterable[Option[T]], splits: Sequence[int], numel: int, most_bytes: int, estimate: Estimate
) -> Cut[T]:
    """Of all tiles and numbers of ``splits``, the fastest one whose sums of ``numel`` results fit ``most_bytes``."""
    cuts: list[Cut[T]] = []
    for option in options:
        for wanted in splits:
            steps = ceil_div(option.all_steps, wanted)
            parts = ceil_div(option.all_steps, steps)
            nbytes = 4 * parts * split_size(numel)
            if parts > 1 and nbytes > most_bytes:
                continue
            taken = estimate.rounds(option.workgroups * parts) * (steps * option.step + estimate.start)
            added = estimate.add + nbytes / estimate.add_rate if parts > 1 else 0
            cuts.append(Cut(option.tile, steps, parts, taken + added))
    return min(cuts, key=lambda cut: cut.microseconds)
