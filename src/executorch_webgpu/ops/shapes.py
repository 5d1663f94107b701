"""Shape arithmetic that several operators share."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from .values import Dims


def row_major_strides(dims: Dims) -> Dims:
    """Strides in elements of a contiguous tensor."""
    strides = [1] * len(dims)
    for i in range(len(dims) - 2, -1, -1):
        strides[i] = strides[i + 1] * dims[i + 1]
    return tuple(strides)


def broadcast(*shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """The common shape by NumPy's rule; None for a size that differs, so that there is none."""
    if len({*shapes}) == 1:
        return shapes[0]
    wide = [{*sizes} - {1} for sizes in zip_longest(*(s[::-1] for s in shapes), fillvalue=1)]
    return tuple(None if len(sizes) > 1 else sizes.pop() if sizes else 1 for sizes in reversed(wide))


def broadcast_strides(dims: Dims, target: Dims) -> Dims:
    """Strides of a contiguous ``dims`` tensor seen as ``target``: 0 along repeated dimensions."""
    padded = (1,) * (len(target) - len(dims)) + dims
    strides = row_major_strides(padded)
    return tuple(0 if d == 1 and t != 1 else s for d, t, s in zip(padded, target, strides, strict=True))


def normalize_dim(dim: int, rank: int) -> int:
    """A dimension counted from the front; negative ones count from the back. Out of range stays out of range."""
    return dim + rank if dim < 0 else dim


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
