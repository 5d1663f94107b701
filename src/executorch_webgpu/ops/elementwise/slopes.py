"""Operators that read a part of a tensor, or a number for each channel, beside each element: glu and prelu."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut
from ..shapes import normalize_dim, row_major_strides
from ..sizes import Found, Sizes, like_first
from ..values import Dims, Tensor
from .broadcast import Expression, View, apply_broadcast, dispatch_views
from .element import is_float, quiet

_PRELU = "select(b * a, a, a > V(0))"


def glu_reference(x: np.ndarray, dim: int) -> Any:
    a, b = np.split(x, 2, axis=dim)
    return a / (1 + np.exp(-b))


def glu_sizes(s: Sizes, x: Tensor, dim: int, out: Tensor) -> Found:
    axis = normalize_dim(dim, x.rank)
    halved = [n // 2 if isinstance(n, int) else None for n in s.of(x)]
    return tuple(halved[i] if i == axis else n for i, n in enumerate(s.of(x)))


def glu_rows(cut: Cut, x: Tensor, dim: int, out: Tensor) -> int | None:
    axis = cut.only(x)
    return None if axis == normalize_dim(dim, x.rank) else axis


@op("aten.glu.default", reference=quiet(glu_reference), promoted=("x",), sizes=glu_sizes, rows=glu_rows)
def glu(planner: Planner, x: Tensor, dim: int, out: Tensor) -> None:
    """The first half of ``x`` along ``dim`` times the sigmoid of the second; a float dtype."""
    axis = normalize_dim(dim, x.rank)
    planner.check(0 <= axis < x.rank, f"glu: {x} has no dimension {dim}")
    planner.check(x.dims[axis] % 2 == 0, f"glu: {x} does not have two halves along dimension {dim}")
    planner.check(is_float(x) and x.dtype == out.dtype, f"glu: {x} and {out} must have one float dtype")
    planner.resize(out)

    def views(dims: Dims) -> list[View]:
        strides = row_major_strides(dims)
        return [View(x, strides), View(x, strides, dims[axis] // 2 * strides[axis])]

    dispatch_views(planner, views(x.dims), out, Expression("a * sigmoid(b)", compute="f32"), views(x.max_dims))


def prelu_reference(x: np.ndarray, weight: np.ndarray) -> Any:
    shape = [1, -1, *[1] * (x.ndim - 2)] if weight.size > 1 and x.ndim > 1 else [-1] if x.ndim == 1 else [1] * x.ndim
    return np.where(x > 0, x, weight.reshape(shape) * x)


def prelu_rows(cut: Cut, x: Tensor, weight: Tensor, out: Tensor) -> int | None:
    """Any of one slope; of several, those that are not channels, and channels with their slopes."""
    axis = cut.axes.get(x.id)
    if axis == 1 and math.prod(weight.max_dims) > 1:
        return 1 if cut.axes == {x.id: 1, weight.id: 0} and not cut.counts else None
    return cut.only(x)


@op(
    "aten.prelu.default",
    reference=quiet(prelu_reference),
    promoted=("x", "weight"),
    sizes=like_first,
    rows=prelu_rows,
)
def prelu(planner: Planner, x: Tensor, weight: Tensor, out: Tensor) -> None:
    """``x`` where it is positive, else times ``weight``: one number, or one for each channel, dimension 1."""
    planner.check(is_float(x) and is_float(weight), f"prelu: {x} and {weight} must have a float dtype")
    channels = x.dims[1] if x.rank > 1 else 1
    planner.check(weight.numel in (1, channels), f"prelu: {weight} must have one number, or {channels}")
    planner.resize(out)

    def views(dims: Dims, slopes: int) -> list[View]:
        along = [int(slopes > 1 and axis == 1) for axis in range(len(dims))]
        return [View(x, row_major_strides(dims)), View(weight, tuple(along))]

    at_most = views(x.max_dims, weight.numel)
    dispatch_views(planner, views(x.dims, weight.numel), out, Expression(_PRELU, compute="f32"), at_most)


@op(
    "aten._prelu_kernel.default",
    reference=quiet(lambda x, weight: np.where(x > 0, x, weight * x)),
    promoted=("x", "weight"),
    elementwise=True,
)
def prelu_kernel(planner: Planner, x: Tensor, weight: Tensor, out: Tensor) -> None:
    """``x`` where it is positive, else times ``weight``; the two broadcast."""
    apply_broadcast(planner, [x, weight], out, Expression(_PRELU))
