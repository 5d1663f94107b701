"""Operators that take parts of a tensor: each is a strided copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut, without
from ..rows import other_dims as other_rows
from ..shapes import ceil_div, normalize_dim, row_major_strides
from ..sizes import Found, Shape, Sizes, listed, other_dims
from ..values import INT32_MAX, IntLike, SymInt, Tensor
from .moves import axis_of, move, replaced


def slice_start(size: int, start: int) -> int:
    return min(max(start + size if start < 0 else start, 0), size)


def slice_length(size: int, start: int, end: int, step: int) -> int:
    return max(0, ceil_div(slice_start(size, end) - slice_start(size, start), step))


def slice_reference(x: np.ndarray, dim: int, start: int | None, end: int | None, step: int) -> np.ndarray:
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, end, step)
    return x[tuple(index)]


def _is_all(start: IntLike | None, end: IntLike | None, step: int) -> bool:
    return start in (None, 0) and (end is None or (isinstance(end, int) and end >= INT32_MAX)) and step == 1


def slice_rows(
    cut: Cut, x: Tensor, dim: int, start: IntLike | None, end: IntLike | None, step: int, out: Tensor
) -> int | None:
    return cut.only(x) if _is_all(start, end, step) else other_rows(cut, x, dim)


@op(
    "aten.slice_copy.Tensor",
    reference=slice_reference,
    sizes=other_dims,
    rows=slice_rows,
    selects="dim",
    reads_rows_of=("x",),
)
def slice_copy(
    planner: Planner, x: Tensor, dim: int, start: IntLike | None, end: IntLike | None, step: int, out: Tensor
) -> None:
    """``x[start:end:step]`` along ``dim``, with Python's rules for what is negative, missing or too large.

    A live ``start`` reaches the kernel through its uniform: only a new length is planned again.
    """
    axis = axis_of(planner, "slice_copy", x, dim)
    planner.check(step > 0, f"slice_copy: step must be positive, not {step}")
    start, end = 0 if start is None else start, INT32_MAX if end is None else end
    size, strides = x.dims[axis], row_major_strides(x.dims)
    length = planner.derive(lambda s, e: slice_length(size, s, e, step), start, end)
    dims, taken = replaced(x.dims, axis, length), replaced(strides, axis, strides[axis] * step)
    if isinstance(start, SymInt):
        move(planner, x, taken, out, dims=dims, start=start, start_size=size, start_stride=strides[axis])
    else:
        move(planner, x, taken, out, slice_start(size, start) * strides[axis], dims)


@op(
    "aten.narrow_copy.default",
    reference=lambda x, dim, start, length: np.take(x, np.arange(length) + start % max(x.shape[dim], 1), axis=dim),
    sizes=lambda s, x, dim, start, length, out: replaced(s.of(x), normalize_dim(dim, x.rank), s.value(length)),
    rows=lambda cut, x, dim, start, length, out: other_rows(cut, x, dim),
    selects="dim",
)
def narrow_copy(planner: Planner, x: Tensor, dim: int, start: IntLike, length: IntLike, out: Tensor) -> None:
    """``length`` elements of ``x`` along ``dim``, from ``start`` on, which counts from the end if it is negative."""
    axis = axis_of(planner, "narrow_copy", x, dim)
    size, strides, count = x.dims[axis], row_major_strides(x.dims), planner.value(length)
    planner.require(0, count, size, f"narrow_copy: the length along dimension {dim} of {x}")

    def first(value: int) -> int:
        place = normalize_dim(value, size)
        planner.check(0 <= place <= size - count, f"narrow_copy: {count} elements from {value} on are not in {x}")
        return place

    if isinstance(start, SymInt):
        planner.derive(first, start)
        move(planner, x, strides, out, start=start, start_size=size, start_stride=strides[axis])
    else:
        move(planner, x, strides, out, first(start) * strides[axis])


def select_sizes(s: Sizes, x: Tensor, dim: int, index: IntLike, out: Tensor) -> Shape | None:
    axis = normalize_dim(dim, x.rank)
    return replaced(s.of(x), axis) if 0 <= axis < x.rank else None


def select_rows(cut: Cut, x: Tensor, dim: int, index: IntLike, out: Tensor) -> int | None:
    return without(cut.only(x), [normalize_dim(dim, x.rank)])


@op(
    "aten.select_copy.int",
    reference=lambda x, dim, index: np.take(x, index, axis=dim),
    sizes=select_sizes,
    rows=select_rows,
    selects="dim",
    reads_rows_of=("x",),
)
def select_copy(planner: Planner, x: Tensor, dim: int, index: IntLike, out: Tensor) -> None:
    """``x`` at ``index`` along ``dim``; a negative index counts from the end of the live dimension."""
    axis = axis_of(planner, "select_copy", x, dim)
    size, stride = x.dims[axis], row_major_strides(x.dims)[axis]
    planner.check(size > 0, f"select_copy: {x} has no element along dimension {dim}")
    planner.require(-size, index, size - 1, f"select_copy: the index into dimension {dim} of {x}")
    strides = replaced(row_major_strides(x.dims), axis)
    if isinstance(index, SymInt):
        move(planner, x, strides, out, start=index, start_size=size, start_stride=stride)
    else:
        move(planner, x, strides, out, normalize_dim(index, size) * stride)


def split_reference(x: np.ndarray, sizes: Sequence[int], dim: int) -> tuple[np.ndarray, ...]:
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=dim))


def split_sizes(s: Sizes, x: Tensor, sizes: Sequence[IntLike], dim: int, outs: Sequence[Tensor]) -> list[Shape]:
    return [replaced(s.of(x), normalize_dim(dim, x.rank), s.value(n)) for n in sizes]


@op(
    "aten.split_with_sizes_copy.default",
    reference=split_reference,
    sizes=split_sizes,
    rows=lambda cut, x, sizes, dim, outs: other_rows(cut, x, dim),
)
def split_with_sizes(planner: Planner, x: Tensor, sizes: Sequence[IntLike], dim: int, outs: Sequence[Tensor]) -> None:
    """Consecutive parts of ``x`` along ``dim``, as many as ``sizes``, which add up to its size."""
    axis = axis_of(planner, "split_with_sizes_copy", x, dim)
    lengths, strides = planner.values(sizes), row_major_strides(x.dims)
    planner.check(
        len(lengths) == len(outs) and sum(lengths) == x.dims[axis] and min(lengths, default=0) >= 0,
        f"split_with_sizes_copy: parts of {list(lengths)} do not make up dimension {dim} of {x}",
    )
    first = 0
    for length, out in zip(lengths, outs, strict=True):
        move(planner, x, strides, out, base=first * strides[axis])
        first += length


def split_sizes_of(size: int, part: int) -> list[int]:
    """Parts of ``part`` elements, of which the last may be smaller; one part of nothing if there is nothing."""
    return [min(part, size - first) for first in range(0, size, part)] or [size]


def equal_parts(s: Sizes, x: Tensor, size: IntLike, dim: int, outs: Sequence[Tensor]) -> list[Found] | None:
    axis = normalize_dim(dim, x.rank)
    if not 0 <= axis < x.rank:
        return None
    whole, part = s.of(x)[axis], s.value(size)
    lengths: Sequence[int | None] = [None] * len(outs)
    if isinstance(whole, int) and isinstance(part, int) and part > 0:
        lengths = split_sizes_of(whole, part)
    return [replaced(s.of(x), axis, length) for length in lengths]


@op(
    "aten.split_copy.Tensor",
    "aten.split.Tensor",
    reference=lambda x, size, dim: split_reference(x, split_sizes_of(x.shape[dim], max(size, 1)), dim),
    sizes=equal_parts,
    rows=lambda cut, x, size, dim, outs: other_rows(cut, x, dim),
)
def split_copy(planner: Planner, x: Tensor, size: IntLike, dim: int, outs: Sequence[Tensor]) -> None:
    """Consecutive parts of ``size`` elements of ``x`` along ``dim``; the last one may be smaller."""
    axis = axis_of(planner, "split_copy", x, dim)
    part = planner.value(size)
    planner.check(part > 0 or x.dims[axis] == part == 0, f"split_copy: parts of {part} do not make up {x}")
    split_with_sizes(planner, x, split_sizes_of(x.dims[axis], max(part, 1)), dim, outs)


@op(
    "aten.unbind_copy.int",
    "aten.unbind.int",
    reference=lambda x, dim: tuple(np.moveaxis(x, dim, 0)),
    sizes=lambda s, x, dim, outs: [replaced(s.of(x), normalize_dim(dim, x.rank))] * len(outs),
    rows=lambda cut, x, dim, outs: without(cut.only(x), [normalize_dim(dim, x.rank)]),
)
def unbind_copy(planner: Planner, x: Tensor, dim: int, outs: Sequence[Tensor]) -> None:
    """``x`` at every index along ``dim``, one output for each."""
    axis = axis_of(planner, "unbind_copy", x, dim)
    planner.check(len(outs) == x.dims[axis], f"unbind_copy: {x} does not make {len(outs)} tensors along {dim}")
    strides = row_major_strides(x.dims)
    for index, out in enumerate(outs):
        move(planner, x, replaced(strides, axis), out, base=index * strides[axis])


def unfold_reference(x: np.ndarray, dim: int, size: int, step: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=dim)
    return slice_reference(windows, dim % x.ndim, None, None, step)


def unfold_sizes(s: Sizes, x: Tensor, dim: int, size: int, step: int, out: Tensor) -> Found:
    axis = normalize_dim(dim, x.rank)
    windows = ((n - size) // step + 1 if isinstance(n, int) and step else None for n in s.of(x)[axis : axis + 1])
    return (*replaced(s.of(x), axis, *windows), size)


@op("aten.unfold_copy.default", reference=unfold_reference, sizes=unfold_sizes, rows=other_rows)
def unfold_copy(planner: Planner, x: Tensor, dim: int, size: int, step: int, out: Tensor) -> None:
    """Windows of ``size`` elements along ``dim``, ``step`` apart; a new last dimension is within one."""
    axis = axis_of(planner, "unfold_copy", x, dim)
    planner.check(
        step > 0 and 0 <= size <= x.dims[axis],
        f"unfold_copy: windows of {size}, {step} apart, do not fit {x}",
    )
    strides = row_major_strides(x.dims)
    move(planner, x, (*replaced(strides, axis, strides[axis] * step), strides[axis]), out)


# -- views of memory -----------------------------------------------------------------------------------------


def diagonal(dims: Sequence[int], offset: int, dim1: int, dim2: int) -> tuple[int, int]:
    """Of a diagonal, where ``dim1`` counts rows and ``dim2`` columns: its length, and its first element."""
    rows, columns = dims[dim1], dims[dim2]
    length = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    strides = row_major_strides(tuple(dims))
    first = offset * strides[dim2] if offset >= 0 else -offset * strides[dim1]
    return length, first if length else 0


def diagonal_axes(planner: Planner, name: str, x: Tensor, dim1: int, dim2: int) -> tuple[int, int]:
    a, b = axis_of(planner, name, x, dim1), axis_of(planner, name, x, dim2)
    planner.check(a != b, f"{name}: a diagonal of {x} needs two dimensions, not {dim1} twice")
    return a, b


def _without_both(numbers: Sequence[Any], a: int, b: int) -> tuple[Any, ...]:
    return tuple(n for axis, n in enumerate(numbers) if axis not in (a, b))


def diagonal_view(dims: Sequence[int], offset: int, a: int, b: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Dims, strides and first element of the view of a contiguous tensor that its diagonals are."""
    length, first = diagonal(dims, offset, a, b)
    strides = row_major_strides(tuple(dims))
    return (*_without_both(dims, a, b), length), (*_without_both(strides, a, b), strides[a] + strides[b]), first


def diagonal_sizes(s: Sizes, x: Tensor, offset: int, dim1: int, dim2: int, out: Tensor) -> Found | None:
    a, b = normalize_dim(dim1, x.rank), normalize_dim(dim2, x.rank)
    if a == b or not 0 <= min(a, b) <= max(a, b) < x.rank:
        return None
    sizes = s.of(x)
    square = isinstance(sizes[a], int) and isinstance(sizes[b], int)
    known = diagonal([n if isinstance(n, int) else 1 for n in sizes], offset, a, b)[0] if square else None
    return (*_without_both(sizes, a, b), sizes[a] if offset == 0 and sizes[a] == sizes[b] else known)


def diagonal_rows(cut: Cut, x: Tensor, offset: int, dim1: int, dim2: int, out: Tensor) -> int | None:
    return without(cut.only(x), [normalize_dim(dim1, x.rank), normalize_dim(dim2, x.rank)])


@op(
    "aten.diagonal_copy.default",
    "aten.diagonal.default",
    reference=lambda x, offset, dim1, dim2: np.diagonal(x, offset, dim1, dim2),
    sizes=diagonal_sizes,
    rows=diagonal_rows,
)
def diagonal_copy(planner: Planner, x: Tensor, offset: int, dim1: int, dim2: int, out: Tensor) -> None:
    """The elements of ``x`` whose index along ``dim2`` is that along ``dim1`` plus ``offset``, as a last dimension."""
    a, b = diagonal_axes(planner, "diagonal_copy", x, dim1, dim2)
    dims, strides, first = diagonal_view(x.dims, offset, a, b)
    move(planner, x, strides, out, first, dims)


def as_strided_reference(
    x: np.ndarray, size: Sequence[int], stride: Sequence[int], storage_offset: int | None
) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1)[strided_places(size, stride, storage_offset)]


def strided_places(size: Sequence[int], stride: Sequence[int], storage_offset: int | None) -> np.ndarray:
    """Where in memory the elements of a strided view lie."""
    places = np.full(tuple(size), storage_offset or 0, np.int64)
    for axis, (n, step) in enumerate(zip(size, stride, strict=True)):
        places += (np.arange(n) * step).reshape((n, *(1,) * (len(size) - axis - 1)))
    return places


def strided_view(
    planner: Planner,
    name: str,
    x: Tensor,
    size: Sequence[IntLike],
    stride: Sequence[IntLike],
    storage_offset: IntLike | None,
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Dims, strides and first element of a view of ``x``, all of whose elements are there."""
    dims, strides = planner.values(size), planner.values(stride)
    first = planner.value(storage_offset) or 0
    planner.check(len(dims) == len(strides), f"{name}: {len(strides)} strides for {len(dims)} sizes")
    fits = min((*dims, *strides, first), default=0) >= 0
    last = first + sum((n - 1) * step for n, step in zip(dims, strides, strict=True))
    fits = fits and (0 in dims or last < x.numel)
    planner.check(fits, f"{name}: dims {list(dims)} along strides {list(strides)} from {first} on leave {x}")
    return dims, strides, first


@op(
    "aten.as_strided_copy.default",
    "aten.as_strided.default",
    reference=as_strided_reference,
    sizes=lambda s, x, size, *rest: listed(s, size),
)
def as_strided_copy(
    planner: Planner,
    x: Tensor,
    size: Sequence[IntLike],
    stride: Sequence[IntLike],
    storage_offset: IntLike | None,
    out: Tensor,
) -> None:
    """The elements of ``x``, as it lies in memory, at multiples of ``stride`` from ``storage_offset`` on."""
    dims, strides, first = strided_view(planner, "as_strided_copy", x, size, stride, storage_offset)
    move(planner, x, strides, out, first, dims)
