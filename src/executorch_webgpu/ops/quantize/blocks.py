"""Blocks of a tensor that share quantization parameters: a scale, and a zero point, for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..reindex.strided import innermost_first
from ..shapes import ceil_div, row_major_strides
from ..values import Dims


@dataclass(frozen=True)
class Blocks:
    """A tensor of ``dims`` in blocks of ``sizes``, which have their parameters in row-major order."""

    dims: Dims
    sizes: Dims

    @property
    def counts(self) -> Dims:
        """How many blocks there are along each dimension."""
        return tuple(ceil_div(d, b) for d, b in zip(self.dims, self.sizes, strict=True))

    @property
    def count(self) -> int:
        return math.prod(self.counts)

    @property
    def divide(self) -> bool:
        """Whether all blocks are whole."""
        return all(b > 0 and d % b == 0 for d, b in zip(self.dims, self.sizes, strict=True))

    def coalesced(self) -> list[tuple[int, int, int]]:
        """(size, block, step from a block's parameters to the next one's), in the fewest dimensions, outermost first.

        A dimension that is one block has no steps.
        """
        steps = row_major_strides(self.counts)
        found: list[tuple[int, int, int]] = []
        for size, block, step in zip(self.dims, self.sizes, steps, strict=True):
            if size == 1:
                continue
            inner = (size, size, 0) if block >= size else (size, block, step)
            joined = _joined(found[-1], inner) if found else None
            found[-1:] = [joined] if joined else [*found[-1:], inner]
        return found


def _joined(outer: tuple[int, int, int], inner: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """Two neighbouring dimensions as one, if they are."""
    (size, block, step), (inner_size, inner_block, inner_step) = outer, inner
    if inner_step == 0:  # whole rows of the outer dimension
        return size * inner_size, block * inner_size, step
    if block == 1 and step == inner_step * ceil_div(inner_size, inner_block) and inner_size % inner_block == 0:
        return size * inner_size, inner_block, inner_step
    return None


def index_params(dims: Sequence[tuple[int, int, int]]) -> dict[str, object]:
    """How affine.wgsl finds an element's block."""
    return {
        "rank": len(dims),
        "dims": innermost_first([d for d, _, _ in dims], 1),
        "blocks": innermost_first([b for _, b, _ in dims], 1),
        "steps": innermost_first([s for _, _, s in dims], 0),
    }
