"""Operators that repeat elements: each is a strided copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import broadcast as broadcast_rows
from ..rows import other_dims as other_rows
from ..rows import repeated
from ..shapes import broadcast, broadcast_strides, normalize_dim, row_major_strides
from ..sizes import Found, Shape, Sizes, like_first, quotient
from ..values import IntLike, Tensor
from .moves import axis_of, move, replaced
from .strided import Copy, dispatch_copy


def expand_reference(x: np.ndarray, size: Sequence[int], implicit: bool) -> np.ndarray:
    kept = (1,) * (len(size) - x.ndim) + x.shape
    return np.broadcast_to(x, [k if s == -1 else s for k, s in zip(kept, size, strict=True)])


def expand_sizes(s: Sizes, x: Tensor, size: Sequence[IntLike], implicit: bool, out: Tensor) -> Shape | None:
    kept = (1,) * (len(size) - x.rank) + s.of(x)
    if len(kept) != len(size):
        return None
    return tuple(k if n == -1 else n for k, n in zip(kept, map(s.value, size), strict=True))


@op(
    "aten.expand_copy.default",
    reference=expand_reference,
    sizes=expand_sizes,
    rows=lambda cut, x, size, implicit, out: repeated(cut, x, size, -1, out),
)
def expand_copy(planner: Planner, x: Tensor, size: Sequence[IntLike], implicit: bool, out: Tensor) -> None:
    """``x`` repeated along dimensions of size 1, and new ones in front, to ``size``; -1 keeps a size."""
    planner.check(len(size) >= x.rank, f"expand_copy: {x} has more dimensions than {len(size)}")
    dims = planner.dims_of(out)
    planner.check(broadcast(x.dims, dims) == dims, f"expand_copy: {x} does not expand to {list(dims)}")
    move(planner, x, broadcast_strides(x.dims, dims), out)  # never an alias: live sizes may come to differ


def repeat_sizes(s: Sizes, x: Tensor, repeats: Sequence[IntLike], out: Tensor) -> Found | None:
    kept = (1,) * (len(repeats) - x.rank) + s.of(x)
    if len(kept) != len(repeats):
        return None
    return tuple(quotient(pair, ()) for pair in zip(map(s.value, repeats), kept, strict=True))


@op(
    "aten.repeat.default",
    reference=np.tile,
    sizes=repeat_sizes,
    rows=lambda cut, x, repeats, out: repeated(cut, x, repeats, 1, out),
)
def repeat(planner: Planner, x: Tensor, repeats: Sequence[IntLike], out: Tensor) -> None:
    """``x``, with new dimensions in front, ``repeats`` times along each dimension."""
    counts = planner.values(repeats)
    planner.check(
        len(counts) >= x.rank and min(counts, default=1) >= 0,
        f"repeat: {x} cannot repeat {list(counts)} times",
    )
    dims = (1,) * (len(counts) - x.rank) + x.dims
    planner.resize(out)
    # Each dimension is two: which repetition (stride 0), and where in it.
    pairs = zip(counts, dims, row_major_strides(dims), strict=True)
    split = [(n, s) for count, d, stride in pairs for n, s in ((count, 0), (d, stride))]
    sizes, strides = tuple(n for n, _ in split), tuple(s for _, s in split)
    dispatch_copy(planner, x, out, Copy(sizes, strides, row_major_strides(sizes)))


def interleaved_sizes(
    s: Sizes, x: Tensor, repeats: IntLike, dim: int | None, output_size: IntLike | None, out: Tensor
) -> Found:
    if dim is None:
        return (quotient((*s.of(x), s.value(repeats)), ()),)
    axis = normalize_dim(dim, x.rank)
    return replaced(s.of(x), axis, *(quotient((n, s.value(repeats)), ()) for n in s.of(x)[axis : axis + 1]))


@op(
    "aten.repeat_interleave.self_int",
    reference=lambda x, repeats, dim, output_size: np.repeat(x, repeats, axis=dim),
    sizes=interleaved_sizes,
    rows=lambda cut, x, repeats, dim, output_size, out: other_rows(cut, x, dim),
)
def repeat_interleave(
    planner: Planner, x: Tensor, repeats: IntLike, dim: int | None, output_size: IntLike | None, out: Tensor
) -> None:
    """Every element of ``x`` along ``dim``, ``repeats`` times in a row; without ``dim``, of ``x`` as one long row."""
    dims = (x.numel,) if dim is None else x.dims
    axis = 0 if dim is None else axis_of(planner, "repeat_interleave", x, dim)
    count = planner.value(repeats)
    planner.check(count >= 0, f"repeat_interleave: {x} cannot repeat {count} times")
    planner.resize(out)
    strides = row_major_strides(dims)
    sizes = (*dims[: axis + 1], count, *dims[axis + 1 :])
    dispatch_copy(planner, x, out, Copy(sizes, replaced(strides, axis, strides[axis], 0), row_major_strides(sizes)))


@op(
    "aten.copy.default",
    reference=lambda x, source, non_blocking: np.broadcast_to(source, x.shape),
    sizes=like_first,
    rows=broadcast_rows,
)
def copy(planner: Planner, x: Tensor, source: Tensor, non_blocking: bool, out: Tensor) -> None:
    """``source``, which broadcasts to the dims of ``x``; of ``x`` only the dims count."""
    fits = broadcast(source.dims, x.dims) == x.dims
    planner.check(fits, f"copy: {source} does not broadcast to the dims of {x}")
    move(planner, source, broadcast_strides(source.dims, x.dims), out)
