"""Operators that reorder elements: each is a strided copy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut, permuted
from ..rows import other_dims as other_rows
from ..shapes import normalize_dim, row_major_strides
from ..sizes import Found, Shape, Sizes, like_first, quotient
from ..values import IntLike, Tensor
from .moves import axis_of, move
from .strided import Copy, dispatch_copies
from .transpose import dispatch_transpose


def _permute(planner: Planner, x: Tensor, order: Sequence[int], out: Tensor) -> None:
    axes = [normalize_dim(d, x.rank) for d in order]
    planner.check(
        sorted(axes) == list(range(x.rank)), f"permute_copy: {list(order)} is not an order of the dims of {x}"
    )
    planner.resize(out)
    strides = row_major_strides(x.dims)
    copy = Copy(out.dims, tuple(strides[a] for a in axes), row_major_strides(out.dims))
    dispatch_transpose(planner, x, out, copy)


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
    for dim in (dim0, dim1) if x.rank else ():
        axis_of(planner, "transpose_copy", x, dim)
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


def _dims_of(x: np.ndarray, dims: Sequence[int]) -> tuple[int, ...]:
    """``dims``, of which a tensor without dimensions has none to name."""
    return tuple(dims) if x.ndim else ()


@op("aten.flip.default", reference=lambda x, dims: np.flip(x, _dims_of(x, dims)), sizes=like_first, rows=other_rows)
def flip(planner: Planner, x: Tensor, dims: Sequence[int], out: Tensor) -> None:
    """``x`` with the order of elements reversed along ``dims``."""
    axes = {axis_of(planner, "flip", x, d) for d in dims} if x.rank else set()
    strides = row_major_strides(x.dims)
    reversed_strides = tuple(-s if a in axes else s for a, s in enumerate(strides))
    base = sum((x.dims[a] - 1) * strides[a] for a in axes)
    move(planner, x, reversed_strides, out, base)


def roll_reference(x: np.ndarray, shifts: Sequence[int], dims: Sequence[int]) -> np.ndarray:
    return np.roll(x, tuple(shifts), tuple(dims)) if dims and x.ndim else np.roll(x, sum(shifts))


@op(
    "aten.roll.default",
    reference=roll_reference,
    sizes=like_first,
    rows=lambda cut, x, shifts, dims, out: other_rows(cut, x, dims or None),
)
def roll(planner: Planner, x: Tensor, shifts: Sequence[IntLike], dims: Sequence[int], out: Tensor) -> None:
    """``x`` moved on by ``shifts`` along ``dims``, past the end to the start; without ``dims`` as one long row.

    Every moved dimension falls into two parts, so that k of them take 2^k copies.
    """
    given, sizes = planner.values(shifts), x.dims if dims else (x.numel,)
    planner.check(len(given) == max(len(dims), 1), f"roll: {len(given)} shifts for {len(dims)} dimensions")
    steps = [0] * len(sizes)
    for shift, dim in zip(given if sizes else (), dims or [0], strict=False):
        axis = axis_of(planner, "roll", x, dim) if dims else 0
        steps[axis] = (steps[axis] + shift) % max(sizes[axis], 1)
    planner.resize(out)
    strides = row_major_strides(sizes)
    # Of each axis: where parts begin in the result, where in x, and how long they are.
    parts = [[(step, 0, n - step), (0, n - step, step)][: 1 + (step > 0)] for n, step in zip(sizes, steps, strict=True)]
    copies = []
    for box in itertools.product(*parts):
        out_base, x_base = (sum(p[i] * s for p, s in zip(box, strides, strict=True)) for i in (0, 1))
        copies.append((x, Copy(tuple(p[2] for p in box), strides, strides, x_base=x_base, out_base=out_base)))
    dispatch_copies(planner, out, copies)


def rot90_sizes(s: Sizes, x: Tensor, k: int, dims: Sequence[int], out: Tensor) -> Shape:
    return tuple(s.of(x)[axis] for axis in _turned(x, k, dims))


def _turned(x: Tensor, k: int, dims: Sequence[int]) -> Sequence[int]:
    """The order of dimensions after ``k`` quarter turns."""
    return _swapped(x, *dims) if k % 2 and len(dims) == 2 else list(range(x.rank))


def _reversed(k: int, plane: Sequence[int]) -> Sequence[int]:
    """The dimensions of the plane that ``k`` quarter turns walk backwards."""
    return ((), plane[1:], plane, plane[:1])[k % 4]


def turned_rows(cut: Cut, x: Tensor, k: int, dims: Sequence[int], out: Tensor) -> int | None:
    if len(dims) != 2 or other_rows(cut, x, _reversed(k, dims)) is None:
        return None
    return permuted(cut, x, _turned(x, k, dims))


@op(
    "aten.rot90.default",
    reference=np.rot90,
    sizes=rot90_sizes,
    rows=turned_rows,
)
def rot90(planner: Planner, x: Tensor, k: int, dims: Sequence[int], out: Tensor) -> None:
    """``x`` turned by ``k`` quarters in the plane of two ``dims``, from the first one towards the second."""
    planner.check(len(dims) == 2, f"rot90: a plane has two dimensions, not {list(dims)}")
    a, b = (axis_of(planner, "rot90", x, d) for d in dims)
    planner.check(a != b, f"rot90: the dimensions {list(dims)} are the same one")
    reverse = _reversed(k, (a, b))
    strides = row_major_strides(x.dims)
    base = sum((x.dims[axis] - 1) * strides[axis] for axis in reverse)
    signed = [-s if axis in reverse else s for axis, s in enumerate(strides)]
    move(planner, x, tuple(signed[axis] for axis in _turned(x, k, dims)), out, base)


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
    dims = (math.prod(batch), channels // (factor * factor), factor, factor, height, width)
    _reordered(planner, x, dims, (0, 1, 4, 2, 5, 3), out)


def pixel_unshuffle_reference(x: np.ndarray, factor: int) -> np.ndarray:
    *batch, channels, height, width = x.shape
    split = x.reshape(-1, channels, height // factor, factor, width // factor, factor)
    dims = (*batch, channels * factor**2, height // factor, width // factor)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(dims)


def unshuffled_sizes(s: Sizes, x: Tensor, factor: int, out: Tensor) -> Found:
    scales = (((factor, factor), ()), ((), (factor,)), ((), (factor,)))
    return (*s.of(x)[:-3], *(quotient((n, *up), down) for n, (up, down) in zip(s.of(x)[-3:], scales, strict=False)))


@op(
    "aten.pixel_unshuffle.default",
    reference=pixel_unshuffle_reference,
    sizes=unshuffled_sizes,
    rows=lambda cut, x, factor, out: other_rows(cut, x, (-3, -2, -1)),
)
def pixel_unshuffle(planner: Planner, x: Tensor, factor: int, out: Tensor) -> None:
    """[..., C, H·r, W·r] -> [..., C·r·r, H, W] for r = ``factor``: neighbours become channels."""
    planner.check(
        x.rank >= 3 and factor > 0 and x.dims[-2] % factor == x.dims[-1] % factor == 0,
        f"pixel_unshuffle: the height and width of {x} must be multiples of {factor}",
    )
    *batch, channels, height, width = x.dims
    dims = (math.prod(batch), channels, height // factor, factor, width // factor, factor)
    _reordered(planner, x, dims, (0, 1, 3, 5, 2, 4), out)


def channel_shuffle_reference(x: np.ndarray, groups: int) -> np.ndarray:
    batch, channels, *rest = x.shape
    return x.reshape(batch, groups, channels // groups, *rest).swapaxes(1, 2).reshape(x.shape)


@op(
    "aten.channel_shuffle.default",
    "aten.native_channel_shuffle.default",
    reference=channel_shuffle_reference,
    sizes=like_first,
    rows=lambda cut, x, groups, out: other_rows(cut, x, 1),
)
def channel_shuffle(planner: Planner, x: Tensor, groups: IntLike, out: Tensor) -> None:
    """[N, g·C, ...] with channel c·g + i of the result being channel i·C + c, for g = ``groups``."""
    count = planner.value(groups)
    fits = x.rank >= 3 and count > 0 and x.dims[1] % count == 0
    planner.check(fits, f"channel_shuffle: the channels of {x} do not fall into {count} groups")
    dims = (x.dims[0], count, x.dims[1] // count, math.prod(x.dims[2:]))
    _reordered(planner, x, dims, (0, 2, 1, 3), out)


def _reordered(planner: Planner, x: Tensor, dims: Sequence[int], order: Sequence[int], out: Tensor) -> None:
    """``out`` is ``x``, seen under ``dims``, with these in another order."""
    planner.resize(out)
    strides = row_major_strides(tuple(dims))
    shuffled = tuple(dims[a] for a in order)
    copy = Copy(shuffled, tuple(strides[a] for a in order), row_major_strides(shuffled))
    dispatch_transpose(planner, x, out, copy)
