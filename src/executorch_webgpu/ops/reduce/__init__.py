"""Reductions over any set of dimensions: sum, mean, extremes and where they lie. One kernel template."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.strided import MAX_RANK, coalesce, innermost_first
from ..rows import Cut
from ..shapes import ceil_div, normalize_dim, row_major_strides
from ..sizes import Shape, Sizes
from ..values import Dims, Tensor

WORKGROUP = 256
LANES = (1, 32, 256)  # invocations that share a row
MANY_ROWS = 1024  # rows that keep a device busy with an invocation each
LONG_ROW = 1024

Array = np.ndarray
Axes = int | Sequence[int] | None


def _numpy_axes(x: Array, dims: Axes) -> tuple[int, ...] | None:
    """Axes for NumPy; no dims are all of them, and a scalar has a dimension 0 that it does not have for NumPy."""
    given = [dims] if isinstance(dims, int) else list(dims or [])
    return tuple(given) if given and x.ndim else None


def sum_reference(x: Array, dims: Axes, keepdim: bool, dtype: Any = None) -> Array:
    """The sum over ``dims``, of nothing 0."""
    return x.sum(axis=_numpy_axes(x, dims), keepdims=keepdim)


def mean_reference(x: Array, dims: Axes, keepdim: bool, dtype: Any = None) -> Array:
    """The mean over ``dims``, of nothing NaN."""
    count = math.prod(x.shape) / max(math.prod(sum_reference(x, dims, keepdim).shape), 1)
    return sum_reference(x, dims, keepdim) / count if count else sum_reference(x, dims, keepdim) * np.nan


def amax_reference(x: Array, dims: Axes, keepdim: bool) -> Array:
    """The largest element, or NaN if there is one."""
    return x.max(axis=_numpy_axes(x, dims), keepdims=keepdim)


def amin_reference(x: Array, dims: Axes, keepdim: bool) -> Array:
    """The smallest element, or NaN if there is one."""
    return x.min(axis=_numpy_axes(x, dims), keepdims=keepdim)


def _arg_reference(position: Callable[..., Any]) -> Callable[..., Any]:
    def reference(x: Array, dim: int | None, keepdim: bool) -> Array:
        found = position(x, axis=None if dim is None or x.ndim == 0 else dim, keepdims=keepdim)
        return np.asarray(found, np.int64)

    return reference


def _kept(x: Tensor, dims: Axes) -> list[int]:
    """The dimensions that are not reduced; none given are all that are."""
    given = [dims] if isinstance(dims, int) else dims or range(x.rank)
    return [a for a in range(x.rank) if a not in {normalize_dim(d, x.rank) for d in given}]


def reduced_sizes(s: Sizes, x: Tensor, dims: Axes, keepdim: bool, *rest: Any) -> Shape:
    kept = _kept(x, dims)
    return tuple(n if a in kept else 1 for a, n in enumerate(s.of(x)) if keepdim or a in kept)


def reduced_rows(cut: Cut, x: Tensor, dims: Axes, keepdim: bool, *rest: Any) -> int | None:
    axis, kept = cut.only(x), _kept(x, dims)
    return None if axis not in kept else axis if keepdim else kept.index(axis)


@op("aten.sum.dim_IntList", reference=sum_reference, sizes=reduced_sizes, rows=reduced_rows)
def sum_dims(planner: Planner, x: Tensor, dims: list[int] | None, keepdim: bool, dtype: Any, out: Tensor) -> None:
    """Sum of x over ``dims``; float32."""
    _reduce(planner, "sum", x, dims, keepdim, out)


@op("aten.mean.dim", reference=mean_reference, sizes=reduced_sizes, rows=reduced_rows)
def mean_dims(planner: Planner, x: Tensor, dims: list[int] | None, keepdim: bool, dtype: Any, out: Tensor) -> None:
    """Mean of x over ``dims``; float32."""
    _reduce(planner, "mean", x, dims, keepdim, out)


@op("aten.amax.default", reference=amax_reference, sizes=reduced_sizes, rows=reduced_rows)
def amax(planner: Planner, x: Tensor, dims: list[int], keepdim: bool, out: Tensor) -> None:
    """Largest element of x over ``dims``; float32."""
    _reduce(planner, "max", x, dims, keepdim, out)


@op("aten.amin.default", reference=amin_reference, sizes=reduced_sizes, rows=reduced_rows)
def amin(planner: Planner, x: Tensor, dims: list[int], keepdim: bool, out: Tensor) -> None:
    """Smallest element of x over ``dims``; float32."""
    _reduce(planner, "min", x, dims, keepdim, out)


@op("aten.argmax.default", reference=_arg_reference(np.argmax), sizes=reduced_sizes, rows=reduced_rows)
def argmax(planner: Planner, x: Tensor, dim: int | None, keepdim: bool, out: Tensor) -> None:
    """Index, int32, of the first NaN or else largest element along ``dim``, or in all of the float32 x."""
    _reduce(planner, "argmax", x, None if dim is None else [dim], keepdim, out)


@op("aten.argmin.default", reference=_arg_reference(np.argmin), sizes=reduced_sizes, rows=reduced_rows)
def argmin(planner: Planner, x: Tensor, dim: int | None, keepdim: bool, out: Tensor) -> None:
    """Index, int32, of the first NaN or else smallest element along ``dim``, or in all of the float32 x."""
    _reduce(planner, "argmin", x, None if dim is None else [dim], keepdim, out)


def _reduce(planner: Planner, name: str, x: Tensor, dims: Sequence[int] | None, keepdim: bool, out: Tensor) -> None:
    """``out`` = the sum, mean, max, min, argmax or argmin of ``x`` over ``dims``."""
    result = "int32" if name in ("argmax", "argmin") else "float32"
    planner.check(
        x.dtype == "float32" and out.dtype == result, f"{name} takes float32 and gives {result}, not {x} into {out}"
    )
    given = [normalize_dim(d, max(x.rank, 1)) for d in dims or ()]
    planner.check(all(0 <= a < max(x.rank, 1) for a in given), f"{name}: {x} has no dimension among {dims}")
    planner.check(len(set(given)) == len(given), f"{name}: a dimension appears twice in {dims}")
    planner.resize(out)
    kept = _kept(x, dims)
    axes = [a for a in range(x.rank) if a not in kept]
    length = math.prod(x.dims[a] for a in axes)
    planner.check(
        length > 0 or name in ("sum", "mean") or out.numel == 0, f"{name}: {x} has no elements to choose from"
    )

    row_dims, row_strides = _space(planner, x, kept)
    element_dims, element_strides = _space(planner, x, axes)
    # Neighbouring invocations read neighbouring elements, of one row or of one row each.
    adjacent = element_strides[-1:] == (1,)
    lanes = 1 if not adjacent and out.numel >= MANY_ROWS else 32 if length <= LONG_ROW else 256
    template = {"kind": "sum" if name == "mean" else name}
    for other in LANES:  # live sizes decide which of them fits
        planner.prepare("reduce/reduce", template=template, overrides={"wg_size": WORKGROUP, "lanes": other})
    planner.dispatch(
        "reduce/reduce",
        planner.grid_1d(ceil_div(out.numel * lanes, WORKGROUP), 1),
        {"x": x, "out": out},
        {
            "rows": out.numel,
            "length": length,
            "scale": 1.0 if name != "mean" else 1 / length if length else math.nan,
            "row_rank": len(row_dims),
            "element_rank": len(element_dims),
            "row_dims": innermost_first(row_dims, 1),
            "row_strides": innermost_first(row_strides, 0),
            "element_dims": innermost_first(element_dims, 1),
            "element_strides": innermost_first(element_strides, 0),
        },
        template=template,
        overrides={"wg_size": WORKGROUP, "lanes": lanes},
    )


def _space(planner: Planner, x: Tensor, axes: Sequence[int]) -> tuple[Dims, Dims]:
    """Dims and strides of ``x`` along ``axes`` alone, in the fewest dimensions."""
    strides = row_major_strides(x.dims)
    dims, (merged,) = coalesce([x.dims[a] for a in axes], [strides[a] for a in axes])
    planner.check(len(dims) <= MAX_RANK, f"reducing {x} takes {len(dims)} dimensions; at most {MAX_RANK} work")
    return dims, merged
