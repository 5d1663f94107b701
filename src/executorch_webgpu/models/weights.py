"""Weights that are read when they are needed, and the constants that a program makes of them.

A model is larger than memory should have to be, so nothing here holds a tensor: a Weight gives any of its rows
as float32, and a Constant yields its bytes in pieces while the program is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidProgramError
from ..format.vkgraph import DataType, VkTensor

Floats = NDArray[np.float32]

PIECE = 1 << 19  # elements: 2 MiB of float32, which stays in a core's cache while it is quantized


@dataclass(frozen=True, eq=False)
class Blocks:
    """The codes of a tensor that its file holds quantized, in groups of a row.

    ``read(start, stop)`` gives those rows as (codes [rows, K]: uint8 0 … 15 in 4 bits, int8 in 8; scales and
    minimums, float32 [rows, K / group]): w = code * scale + minimum. In 8 bits minimums are 0.
    """

    bits: Literal[4, 8]
    group: int
    read: Callable[[int, int], tuple[NDArray[np.uint8], Floats, Floats]]


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor of a model file. ``read(start, stop)`` gives those rows, float32 [stop - start, dims[-1]], as they are.

    ``source``: what the file calls it, if not ``name``.
    """

    name: str
    dims: tuple[int, ...]
    read: Callable[[int, int], Floats]
    blocks: Blocks | None = None
    source: str = ""

    def rows(self, start: int, stop: int) -> Floats:
        """Those rows as ``read`` gives them; InvalidProgramError if one is not finite."""
        with np.errstate(all="ignore"):
            rows = self.read(start, stop)
        self.check_finite(start, rows)
        return rows

    def stored(self, start: int, stop: int) -> tuple[NDArray[np.uint8], Floats, Floats]:
        """Those rows as ``blocks`` gives them; InvalidProgramError if a scale or a minimum is not finite."""
        assert self.blocks is not None
        with np.errstate(all="ignore"):
            codes, scales, minimums = self.blocks.read(start, stop)
        self.check_finite(start, scales, minimums)
        return codes, scales, minimums

    def check_finite(self, start: int, *parts: Floats) -> None:
        """Each part, of the rows from ``start`` on, is finite; InvalidProgramError with tensor and row if not."""
        for part in parts:
            by_row = part.reshape(len(part), -1)
            if not np.isfinite(by_row).all():
                row, column = (int(i) for i in np.argwhere(~np.isfinite(by_row))[0])
                place = f"row {start + row}" if len(self.dims) > 1 else f"its element {column}"
                raise InvalidProgramError(
                    f"The tensor {self.source or self.name!r} is not finite, {place} has {by_row[row, column]}: use a "
                    "file whose weights are all finite."
                )

    @property
    def row_count(self) -> int:
        return math.prod(self.dims[:-1])

    def ranges(self) -> Iterator[tuple[int, int]]:
        """All rows in order as (start, stop), about ``PIECE`` elements at a time."""
        step = max(1, PIECE // self.dims[-1])
        for start in range(0, self.row_count, step):
            yield start, min(start + step, self.row_count)

    def pieces(self) -> Iterator[Floats]:
        """All rows in order, a range at a time."""
        return (self.rows(start, stop) for start, stop in self.ranges())


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor of a program. ``pieces`` begins anew at every call; ``name`` is unique in the program."""

    name: str
    dtype: DataType
    dims: tuple[int, ...]
    pieces: Callable[[], Iterable[NDArray[np.generic]]]

    @property
    def nbytes(self) -> int:
        return VkTensor(self.dtype, self.dims).nbytes


def float_constant(weight: Weight) -> Constant:
    """The weight in float32."""
    return Constant(weight.name, DataType.FLOAT32, weight.dims, weight.pieces)


def array_constant(name: str, array: Floats) -> Constant:
    """A small array that is in memory."""
    return Constant(name, DataType.FLOAT32, array.shape, lambda: [array])


def zeros(name: str, dims: tuple[int, ...]) -> Constant:
    """float32 zeros."""

    def pieces() -> Iterator[Floats]:
        left = math.prod(dims)
        while left:
            yield np.zeros(min(left, PIECE), np.float32)
            left -= min(left, PIECE)

    return Constant(name, DataType.FLOAT32, dims, pieces)
