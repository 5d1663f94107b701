"""Operators that pick, repeat or reorder elements: each is a strided copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut, permuted, repeated, without
from ..rows import other_dims as other_rows
from ..shapes import broadcast, broadcast_strides, ceil_div, normalize_dim, row_major_strides
from ..sizes import Found, Shape, Sizes, like_first, other_dims, quotient
from ..values import INT32_MAX, Dims, IntLike, SymInt, Tensor
from .strided import Copy, dispatch_copy

N = TypeVar("N")


def _axis(planner: Planner, name: str, x: Tensor, dim: int) -> int:
    axis = normalize_dim(dim, x.rank)
    planner.check(0 <= axis < x.rank, f"{name}: {x} has no dimension {dim}")
    return axis


def _replaced(numbers: tuple[N, ...], axis: int, *values: N) -> tuple[N, ...]:
    return (*numbers[:axis], *values, *numbers[axis + 1 :])


def _gather(
    planner: Planner, x: Tensor, strides: Dims, out: Tensor, base: int = 0, dims: Dims | None = None, **live: Any
) -> None:
    """``out`` holds elements of ``x``: at ``base`` and along ``strides``, from a ``live`` start on (see ``Copy``)."""
    planner.resize(out, dims)
    dispatch_copy(planner, x, out, Copy(out.dims, strides, row_major_strides(out.dims), x_base=base, **live))


# -- parts ---------------------------------------------------------------------------------------------------


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
    axis = _axis(planner, "slice_copy", x, dim)
    planner.check(step > 0, f"slice_copy: step must be positive, not {step}")
    start, end = 0 if start is None else start, INT32_MAX if end is None else end
    size, strides = x.dims[axis], row_major_strides(x.dims)
    length = planner.derive(lambda s, e: slice_length(size, s, e, step), start, end)
    dims, taken = _replaced(x.dims, axis, length), _replaced(strides, axis, strides[axis] * step)
    if isinstance(start, SymInt):
        _gather(planner, x, taken, out, dims=dims, start=start, start_size=size, start_stride=strides[axis])
    else:
        _gather(planner, x, taken, out, slice_start(size, start) * strides[axis], dims)


def select_sizes(s: Sizes, x: Tensor, dim: int, index: IntLike, out: Tensor) -> Shape | None:
    axis = normalize_dim(dim, x.rank)
    return _replaced(s.of(x), axis) if 0 <= axis < x.rank else None


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
    axis = _axis(planner, "select_copy", x, dim)
    size, stride = x.dims[axis], row_major_strides(x.dims)[axis]
    planner.check(size > 0, f"select_copy: {x} has no element along dimension {dim}")
    planner.require(-size, index, size - 1, f"select_copy: the index into dimension {dim} of {x}")
    strides = _replaced(row_major_strides(x.dims), axis)
    if isinstance(index, SymInt):
        _gather(planner, x, strides, out, start=index, start_size=size, start_stride=stride)
    else:
        _gather(planner, x, strides, out, normalize_dim(index, size) * stride)


def split_reference(x: np.ndarray, sizes: Sequence[int], dim: int) -> tuple[np.ndarray, ...]:
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=dim))


def split_sizes(s: Sizes, x: Tensor, sizes: Sequence[IntLike], dim: int, outs: Sequence[Tensor]) -> list[Shape]:
    return [_replaced(s.of(x), normalize_dim(dim, x.rank), s.value(n)) for n in sizes]


@op(
    "aten.split_with_sizes_copy.default",
    reference=split_reference,
    sizes=split_sizes,
    rows=lambda cut, x, sizes, dim, outs: other_rows(cut, x, dim),
)
def split_with_sizes(planner: Planner, x: Tensor, sizes: Sequence[IntLike], dim: int, outs: Sequence[Tensor]) -> None:
    """Consecutive parts of ``x`` along ``dim``, as many as ``sizes``, which add up to its size."""
    axis = _axis(planner, "split_with_sizes_copy", x, dim)
    lengths, strides = planner.values(sizes), row_major_strides(x.dims)
    planner.check(
        len(lengths) == len(outs) and sum(lengths) == x.dims[axis] and min(lengths, default=0) >= 0,
        f"split_with_sizes_copy: parts of {list(lengths)} do not make up dimension {dim} of {x}",
    )
    first = 0
    for length, out in zip(lengths, outs, strict=True):
        _gather(planner, x, strides, out, base=first * strides[axis])
        first += length


def unfold_reference(x: np.ndarray, dim: int, size: int, step: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=dim)
    return slice_reference(windows, dim % x.ndim, None, None, step)


def unfold_sizes(s: Sizes, x: Tensor, dim: int, size: int, step: int, out: Tensor) -> Found:
    axis = normalize_dim(dim, x.rank)
    windows = ((n - size) // step + 1 if isinstance(n, int) and step else None for n in s.of(x)[axis : axis + 1])
    return (*_replaced(s.of(x), axis, *windows), size)


@op("aten.unfold_copy.default", reference=unfold_reference, sizes=unfold_sizes, rows=other_rows)
def unfold_copy(planner: Planner, x: Tensor, dim: int, size: int, step: int, out: Tensor) -> None:
    """Windows of ``size`` elements along ``dim``, ``step`` apart; a new last dimension is within one."""
    axis = _axis(planner, "unfold_copy", x, dim)
    planner.check(
        step > 0 and 0 <= size <= x.dims[axis],
        f"unfold_copy: windows of {size}, {step} apart, do not fit {x}",
    )
    strides = row_major_strides(x.dims)
    _gather(planner, x, (*_replaced(strides, axis, strides[axis] * step), strides[axis]), out)


# -- order ---------------------------------------------------------------------------------------------------


def _permute(planner: Planner, x: Tensor, order: Sequence[int], out: Tensor) -> None:
    axes = [normalize_dim(d, x.rank) for d in order]
    planner.check(
        sorted(axes) == list(range(x.rank)), f"permute_copy: {list(order)} is not an order of the dims of {x}"
    )
    strides = row_major_strides(x.dims)
    _gather(planner, x, tuple(strides[a] for a in axes), out)


def permute_sizes(s: Sizes, x: Tensor, order: Sequence[int], out: Tensor) -> Shape | None:
    axes = [normalize_dim(d, x.rank) for d in order]
    return tuple(s.of(x)[a] for a in axes) if sorted(axes) == list(range(x.rank)) else None


@op("aten.permute_copy.default", "aten.permute.default", reference=np.transpose, sizes=permute_sizes, rows=permuted)
def permute_copy(planner: Planner, x: Tensor, order: Sequence[int], out: Tensor) -> None:
    """``x`` with its dimensions in ``order``."""
    _permute(planner, x, order, out)


def _swapped(x: Tensor, dim0: int, dim1: int) -> list[int]:
    a, b = normalize_dim(dim0, x.rank), normalize_dim(dim1, x.rank)
    return [b if axis == a else a if axis == b else axis for axis in range(x.rank)]


@op(
    "aten.transpose_copy.int",
    reference=np.swapaxes,
    sizes=lambda s, x, dim0, dim1, out: permute_sizes(s, x, _swapped(x, dim0, dim1), out),
    rows=lambda cut, x, dim0, dim1, out: permuted(cut, x, _swapped(x, dim0, dim1), out),
)
def transpose_copy(planner: Planner, x: Tensor, dim0: int, dim1: int, out: Tensor) -> None:
    """``x`` with two dimensions swapped."""
    for dim in (dim0, dim1):
        _axis(planner, "transpose_copy", x, dim)
    _permute(planner, x, _swapped(x, dim0, dim1), out)


@op(
    "aten.t_copy.default",
    reference=np.transpose,
    sizes=lambda s, x, out: s.of(x)[::-1],
    rows=lambda cut, x, out: permuted(cut, x, range(x.rank)[::-1]),
)
def t_copy(planner: Planner, x: Tensor, out: Tensor) -> None:
    """The transpose of a matrix; a vector stays as it is."""
    planner.check(x.rank <= 2, f"t_copy: {x} must have at most two dimensions")
    _permute(planner, x, range(x.rank)[::-1], out)


@op("aten.flip.default", reference=np.flip, sizes=like_first, rows=other_rows)
def flip(planner: Planner, x: Tensor, dims: Sequence[int], out: Tensor) -> None:
    """``x`` with the order of elements reversed along ``dims``."""
    axes = {_axis(planner, "flip", x, d) for d in dims}
    strides = row_major_strides(x.dims)
    reversed_strides = tuple(-s if a in axes else s for a, s in enumerate(strides))
    base = sum((x.dims[a] - 1) * strides[a] for a in axes)
    _gather(planner, x, reversed_strides, out, base)


def pixel_shuffle_reference(x: np.ndarray, factor: int) -> np.ndarray:
    *batch, channels, height, width = x.shape
    split = x.reshape(-1, channels // factor**2, factor, factor, height, width)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(*batch, -1, height * factor, width * factor)


def shuffled_sizes(s: Sizes, x: Tensor, factor: int, out: Tensor) -> Found:
    scales = (((), (factor, factor)), ((factor,), ()), ((factor,), ()))
    return (*s.of(x)[:-3], *(quotient((n, *up), down) for n, (up, down) in zip(s.of(x)[-3:], scales, strict=False)))


@op(
    "aten.pixel_shuffle.default",
    reference=pixel_shuffle_reference,
    sizes=shuffled_sizes,
    rows=lambda cut, x, factor, out: other_rows(cut, x, (-3, -2, -1)),
)
def pixel_shuffle(planner: Planner, x: Tensor, factor: int, out: Tensor) -> None:
    """[..., C·r·r, H, W] -> [..., C, H·r, W·r] for r = ``factor``: channels become neighbours."""
    planner.check(
        x.rank >= 3 and factor > 0 and x.dims[-3] % (factor * factor) == 0,
        f"pixel_shuffle: the channels of {x} must be a multiple of {factor * factor}",
    )
    *batch, channels, height, width = x.dims
    planner.resize(out)
    dims = (math.prod(batch), channels // (factor * factor), factor, factor, height, width)
    order, strides = (0, 1, 4, 2, 5, 3), row_major_strides(dims)
    shuffled = tuple(dims[a] for a in order)
    copy = Copy(shuffled, tuple(strides[a] for a in order), row_major_strides(shuffled))
    dispatch_copy(planner, x, out, copy)


# -- repetition ----------------------------------------------------------------------------------------------


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
    _gather(planner, x, broadcast_strides(x.dims, dims), out)  # never an alias: live sizes may come to differ


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


# -- joining -------------------------------------------------------------------------------------------------


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
    return _replaced(parts[0], axis, joint)


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
    axis = _axis(planner, "cat", parts[0], dim)
    others = {_replaced(x.dims, axis) for x in parts}
    same_rank = all(x.rank == parts[0].rank for x in parts)
    planner.check(same_rank and len(others) == 1, f"cat: {parts} differ in more than dimension {dim}")
    planner.resize(out)
    out_strides, first = row_major_strides(out.dims), 0
    for x in parts:
        base = first * out_strides[axis]
        if math.prod(x.dims):
            dispatch_copy(planner, x, out, Copy(x.dims, row_major_strides(x.dims), out_strides, out_base=base))
        first += x.dims[axis]
