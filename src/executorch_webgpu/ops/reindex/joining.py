"""Operators that join tensors, or put one into another: strided copies into one result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut, without
from ..shapes import normalize_dim, row_major_strides
from ..sizes import Found, Sizes, like_first
from ..values import INT32_MAX, Dims, IntLike, SymInt, Tensor
from .moves import axis_of, replaced
from .parts import diagonal_axes, diagonal_view, slice_length, slice_start, strided_places, strided_view
from .strided import Copy, dispatch_copies


def _joined(xs: Sequence[Tensor]) -> Sequence[Tensor]:
    return [x for x in xs if x.max_dims != (0,)] or xs


def cat_sizes(s: Sizes, xs: Sequence[Tensor], dim: int, out: Tensor) -> Found | None:
    parts = [s.of(x) for x in _joined(xs)]
    ranks = {len(part) for part in parts}
    axis = normalize_dim(dim, min(ranks, default=0))
    if len(ranks) != 1 or not 0 <= axis < min(ranks):
        return None
    numbers = [n for n in (part[axis] for part in parts) if isinstance(n, int)]
    joint = parts[0][axis] if len(parts) == 1 else sum(numbers) if len(numbers) == len(parts) else None
    return replaced(parts[0], axis, joint)


def cat_rows(cut: Cut, xs: Sequence[Tensor], dim: int, out: Tensor) -> int | None:
    parts = _joined(xs)
    axis = cut.together(parts)
    return None if len(parts) > 1 and axis == normalize_dim(dim, out.rank) else axis


@op(
    "aten.cat.default",
    reference=lambda xs, dim: np.concatenate([x for x in xs if x.shape != (0,)] or xs, axis=dim),
    sizes=cat_sizes,
    rows=cat_rows,
)
def cat(planner: Planner, xs: Sequence[Tensor], dim: int, out: Tensor) -> None:
    """The tensors of ``xs`` one after the other along ``dim``; an empty vector joins anything."""
    parts = [x for x in xs if x.dims != (0,)] or list(xs)
    planner.check(len(parts) > 0, "cat: there is nothing to join")
    axis = axis_of(planner, "cat", parts[0], dim)
    others = {replaced(x.dims, axis) for x in parts}
    same_rank = all(x.rank == parts[0].rank for x in parts)
    planner.check(same_rank and len(others) == 1, f"cat: {parts} differ in more than dimension {dim}")
    planner.resize(out)
    _side_by_side(planner, parts, [x.dims for x in parts], axis, out.dims, out)


def _side_by_side(
    planner: Planner, xs: Sequence[Tensor], dims: Sequence[Dims], axis: int, joint: Dims, out: Tensor
) -> None:
    """Put tensors, seen under ``dims``, one after the other along ``axis`` of ``out``, seen under ``joint``."""
    strides, first = row_major_strides(joint), 0
    copies = []
    for x, sizes in zip(xs, dims, strict=True):
        copies.append((x, Copy(sizes, row_major_strides(sizes), strides, out_base=first * strides[axis])))
        first += sizes[axis]
    dispatch_copies(planner, out, copies)


def stacked_sizes(s: Sizes, xs: Sequence[Tensor], dim: int, out: Tensor) -> Found | None:
    sizes = s.of(xs[0]) if xs else ()
    axis = normalize_dim(dim, len(sizes) + 1)
    return (*sizes[:axis], len(xs), *sizes[axis:]) if xs else None


def stacked_rows(cut: Cut, xs: Sequence[Tensor], dim: int, out: Tensor) -> int | None:
    axis = cut.together(xs)
    return None if axis is None else axis + (axis >= normalize_dim(dim, out.rank))


@op(
    "aten.stack.default",
    reference=lambda xs, dim: np.stack(xs, axis=dim),
    sizes=stacked_sizes,
    rows=stacked_rows,
)
def stack(planner: Planner, xs: Sequence[Tensor], dim: int, out: Tensor) -> None:
    """The tensors of ``xs``, of one shape, along a new dimension ``dim``."""
    planner.check(len(xs) > 0, "stack: there is nothing to join")
    axis = normalize_dim(dim, xs[0].rank + 1)
    alike = 0 <= axis <= xs[0].rank and all(x.dims == xs[0].dims for x in xs)
    planner.check(alike, f"stack: {list(xs)} must have one shape, which can get a dimension {dim}")
    planner.resize(out)
    dims = (*xs[0].dims[:axis], 1, *xs[0].dims[axis:])
    _side_by_side(planner, xs, [dims] * len(xs), axis, replaced(dims, axis, len(xs)), out)


# -- one tensor in another -----------------------------------------------------------------------------------


def _put(planner: Planner, x: Tensor, source: Tensor, dims: Dims, strides: Dims, base: int, out: Tensor) -> None:
    """``out`` is ``x`` with ``source``, which has ``dims``, at ``base`` and along ``strides``."""
    planner.check(source.dims == dims, f"{source} must have the dims {list(dims)} of the part of {x} that it replaces")
    planner.resize(out)
    whole, part = row_major_strides(x.dims), row_major_strides(dims)
    put = Copy(dims, part, strides, out_base=base)
    dispatch_copies(planner, out, [(x, Copy(x.dims, whole, whole)), (source, put)])


def _put_rows(cut: Cut, x: Tensor, source: Tensor, gone: Sequence[int]) -> int | None:
    """Where both are cut along one dimension of ``x``, which ``source`` has without those that are ``gone``."""
    axis = cut.axes.get(x.id)
    place = without(axis, [normalize_dim(d, x.rank) for d in gone])
    alone = place is not None and x is not source and cut.axes == {x.id: axis, source.id: place} and not cut.counts
    return axis if alone else None


def slice_scatter_reference(
    x: np.ndarray, source: np.ndarray, dim: int, start: int | None, end: int | None, step: int
) -> np.ndarray:
    result = np.array(x)
    place = [slice(None)] * x.ndim
    place[dim] = slice(start, end, step)
    result[tuple(place)] = source
    return result


def slice_scatter_rows(
    cut: Cut,
    x: Tensor,
    source: Tensor,
    dim: int,
    start: IntLike | None,
    end: IntLike | None,
    step: int,
    out: Tensor,
) -> int | None:
    axis = cut.together([x, source])
    return axis if axis is not None and axis != normalize_dim(dim, x.rank) else None


@op(
    "aten.slice_scatter.default",
    reference=slice_scatter_reference,
    sizes=like_first,
    rows=slice_scatter_rows,
)
def slice_scatter(
    planner: Planner,
    x: Tensor,
    source: Tensor,
    dim: int,
    start: IntLike | None,
    end: IntLike | None,
    step: int,
    out: Tensor,
) -> None:
    """``x`` with ``source`` in place of ``x[start:end:step]`` along ``dim``, by Python's rules for slices."""
    axis = axis_of(planner, "slice_scatter", x, dim)
    planner.check(step > 0, f"slice_scatter: step must be positive, not {step}")
    first = planner.value(0 if start is None else start)
    last = planner.value(INT32_MAX if end is None else end)
    size, strides = x.dims[axis], row_major_strides(x.dims)
    length = slice_length(size, first, last, step)
    if planner.building and isinstance(start, SymInt) | isinstance(end, SymInt):  # what they hold is not known yet
        first, length = 0, source.dims[axis]
    dims = replaced(x.dims, axis, length)
    taken = replaced(strides, axis, strides[axis] * step)
    _put(planner, x, source, dims, taken, slice_start(size, first) * strides[axis], out)


def select_scatter_reference(x: np.ndarray, source: np.ndarray, dim: int, index: int) -> np.ndarray:
    result = np.array(x)
    place: list[Any] = [slice(None)] * x.ndim
    place[dim] = index
    result[tuple(place)] = source
    return result


@op(
    "aten.select_scatter.default",
    reference=select_scatter_reference,
    sizes=like_first,
    rows=lambda cut, x, source, dim, index, out: _put_rows(cut, x, source, [dim]),
)
def select_scatter(planner: Planner, x: Tensor, source: Tensor, dim: int, index: IntLike, out: Tensor) -> None:
    """``x`` with ``source`` at ``index`` along ``dim``; a negative index counts from the end."""
    axis = axis_of(planner, "select_scatter", x, dim)
    size, strides, place = x.dims[axis], row_major_strides(x.dims), planner.value(index)
    planner.require(-size, place, size - 1, f"select_scatter: the index into dimension {dim} of {x}")
    base = normalize_dim(place, size) * strides[axis]
    _put(planner, x, source, replaced(x.dims, axis), replaced(strides, axis), base, out)


def diagonal_scatter_reference(x: np.ndarray, source: np.ndarray, offset: int, dim1: int, dim2: int) -> np.ndarray:
    result = np.array(x)
    view = np.moveaxis(result, (dim1, dim2), (-2, -1))
    n = source.shape[-1]
    view[..., max(-offset, 0) + np.arange(n), max(offset, 0) + np.arange(n)] = source
    return result


@op(
    "aten.diagonal_scatter.default",
    reference=diagonal_scatter_reference,
    sizes=like_first,
    rows=lambda cut, x, source, offset, dim1, dim2, out: _put_rows(cut, x, source, [dim1, dim2]),
)
def diagonal_scatter(
    planner: Planner, x: Tensor, source: Tensor, offset: int, dim1: int, dim2: int, out: Tensor
) -> None:
    """``x`` with ``source`` in place of what ``diagonal_copy`` takes."""
    a, b = diagonal_axes(planner, "diagonal_scatter", x, dim1, dim2)
    dims, strides, first = diagonal_view(x.dims, offset, a, b)
    _put(planner, x, source, dims, strides, first, out)


def as_strided_scatter_reference(
    x: np.ndarray, source: np.ndarray, size: Sequence[int], stride: Sequence[int], storage_offset: int | None
) -> np.ndarray:
    result = np.array(x, order="C")
    result.reshape(-1)[strided_places(size, stride, storage_offset)] = source
    return result


@op("aten.as_strided_scatter.default", reference=as_strided_scatter_reference, sizes=like_first)
def as_strided_scatter(
    planner: Planner,
    x: Tensor,
    source: Tensor,
    size: Sequence[IntLike],
    stride: Sequence[IntLike],
    storage_offset: IntLike | None,
    out: Tensor,
) -> None:
    """``x`` with ``source`` in place of what ``as_strided_copy`` takes, where no element may be taken twice."""
    dims, strides, first = strided_view(planner, "as_strided_scatter", x, size, stride, storage_offset)
    reach, overlaps = 0, False
    for step, n in sorted((step, n) for step, n in zip(strides, dims, strict=True) if n > 1):
        overlaps, reach = overlaps or step <= reach, reach + step * (n - 1)
    planner.check(not overlaps, f"as_strided_scatter: strides {list(strides)} name elements of {x} twice")
    _put(planner, x, source, dims, strides, first, out)
