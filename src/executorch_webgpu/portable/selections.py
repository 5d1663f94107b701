"""Host kernels whose results are as large as their values say, which no plan can know before it runs them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray


def _masked_select(x: Array, mask: Array) -> Array:
    joint = np.broadcast_shapes(x.shape, mask.shape)
    return np.broadcast_to(x, joint)[np.broadcast_to(mask != 0, joint)]


def _nonzero(x: Array) -> Array:
    return np.argwhere(x) if x.ndim else np.zeros((int(x != 0), 0), np.int64)


def _repeat_interleave(repeats: Array, output_size: int | None) -> Array:
    if repeats.ndim != 1 or (repeats < 0).any():
        raise ValueError("repeats are a vector of numbers that are not negative")
    result = np.repeat(np.arange(len(repeats)), repeats)
    if output_size is not None and output_size != len(result):
        raise ValueError(f"repeats make {len(result)} elements, not {output_size}")
    return result


def _triangle(lower: bool) -> Callable[..., Array]:
    """Rows and columns of the elements of a triangle, in the order of rows."""

    def run(rows: int, columns: int, offset: int, *_: Any) -> Array:
        mask = np.tri(rows, columns, offset if lower else offset - 1, dtype=bool)
        return np.stack(np.nonzero(mask if lower else ~mask))

    return run


def _unique(x: Array, is_sorted: bool, inverse: bool, counts: bool) -> tuple[Array, ...]:
    """Distinct elements in their order, where each element is among them, and how often each is there."""
    values, places, numbers = np.unique(x, return_inverse=True, return_counts=True, equal_nan=False)
    none = np.zeros(0, np.int64)
    return values, np.reshape(places, x.shape) if inverse else none, numbers if counts else none


def _unique_rows(x: Array, dim: int, is_sorted: bool, inverse: bool, counts: bool) -> tuple[Array, ...]:
    """The same of slices along a dimension; where they are and how often is always told."""
    values, places, numbers = np.unique(x, axis=dim, return_inverse=True, return_counts=True, equal_nan=False)
    return values, places.reshape(-1), numbers


def _unique_runs(x: Array, inverse: bool, counts: bool, dim: int | None) -> tuple[Array, ...]:
    """The first of every run of equal elements, or slices along ``dim``; which run each is in, and their lengths.

    Along a dimension both are told without being asked for, as in torch.
    """
    moved = x.reshape(-1) if dim is None else np.moveaxis(x, dim, 0)
    n = len(moved)
    begins, slices = np.ones(n, bool), moved.reshape(n, math.prod(moved.shape[1:]))
    begins[1:] = (slices[1:] != slices[:-1]).any(axis=1)
    starts = np.flatnonzero(begins)
    values = moved[starts] if dim is None else np.moveaxis(moved[starts], 0, dim)
    runs, none = np.cumsum(begins) - 1, np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, n))
    if dim is not None:
        return values, runs, lengths
    return values, runs.reshape(x.shape) if inverse else none, lengths if counts else none


# By name and overload.
SELECTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("aten::nonzero", "out"): _nonzero,
    ("aten::masked_select", "out"): _masked_select,
    ("aten::repeat_interleave", "Tensor_out"): _repeat_interleave,
    ("aten::tril_indices", "out"): _triangle(lower=True),
    ("aten::triu_indices", "out"): _triangle(lower=False),
    ("aten::_unique2", "out"): _unique,
    ("aten::unique_dim", "out"): _unique_rows,
    ("aten::unique_consecutive", "out"): _unique_runs,
}
