"""Sums, means, products, counts, and whether any or all elements hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..plan import Planner
from ..registry import op
from ..values import Tensor
from . import reference
from .axes import Axes, all_sizes, checked_axes, reduced_rows, reduced_sizes
from .passes import Outs, Reduction, dispatch

_NONZERO = "(bitcast<u32>(v) & 0x7fffffffu) != 0u"
_NAN = "(bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u"


def is_float(x: Tensor) -> bool:
    return "float" in x.dtype


def reduce_to(planner: Planner, name: str, reduction: Reduction, x: Tensor, dims: Axes, out: Tensor) -> None:
    """Check, size and plan a reduction with one result."""
    axes = checked_axes(planner, name, x, dims)
    planner.resize(out)
    dispatch(planner, reduction, x, axes, Outs(out))


def nonzero(x: Tensor) -> str:
    """Whether an element ``v`` is not 0, as WGSL."""
    return _NONZERO if is_float(x) else "v != 0u" if x.dtype == "bool" else "v != 0"


def keep_nan(expression: str) -> str:
    """An expression of a float ``v`` that is NaN where that is."""
    return f"select({expression}, v, {_NAN})"


def _total(planner: Planner, name: str, x: Tensor, dims: Axes, out: Tensor, of: str = "v") -> None:
    """A sum or a product in the dtype of ``out``; of bools, whether any or all hold."""
    if out.dtype == "bool":
        reduction = Reduction("any" if name == "sum" else "all", "f32" if is_float(x) else "i32")
    else:
        reduction = Reduction(name, "f32" if is_float(out) else "i32", of)
    reduce_to(planner, name, reduction, x, dims, out)


@op("aten.sum.dim_IntList", reference=reference.sum_reference, sizes=reduced_sizes, rows=reduced_rows)
def sum_dims(planner: Planner, x: Tensor, dims: list[int] | None, keepdim: bool, dtype: Any, out: Tensor) -> None:
    """Sum of x over ``dims``, of any dtypes; int32 wraps."""
    _total(planner, "sum", x, dims, out)


@op(
    "aten.sum.default",
    reference=lambda x, dtype: reference.sum_reference(x, None, False, dtype),
    sizes=all_sizes,
)
def sum_all(planner: Planner, x: Tensor, dtype: Any, out: Tensor) -> None:
    """Sum of all elements of x, of any dtypes; int32 wraps."""
    _total(planner, "sum", x, None, out)


@op("aten.nansum.default", reference=reference.nansum_reference, sizes=reduced_sizes, rows=reduced_rows)
def nansum(planner: Planner, x: Tensor, dims: list[int] | None, keepdim: bool, dtype: Any, out: Tensor) -> None:
    """Sum over ``dims`` of what is not NaN."""
    of = f"select(v, 0.0, {_NAN})" if is_float(x) else "v"
    _total(planner, "sum", x, dims, out, of)


@op("aten.prod.dim_int", reference=reference.prod_reference, sizes=reduced_sizes, rows=reduced_rows)
def prod_dim(planner: Planner, x: Tensor, dim: int, keepdim: bool, dtype: Any, out: Tensor) -> None:
    """Product of x along ``dim``, of any dtypes; int32 wraps."""
    _total(planner, "product", x, dim, out)


@op(
    "aten.prod.default",
    reference=lambda x, dtype: reference.prod_reference(x, None, False, dtype),
    sizes=all_sizes,
)
def prod_all(planner: Planner, x: Tensor, dtype: Any, out: Tensor) -> None:
    """Product of all elements of x, of any dtypes; int32 wraps."""
    _total(planner, "product", x, None, out)


def _mean(planner: Planner, x: Tensor, dims: Axes, out: Tensor) -> None:
    planner.check(is_float(out), f"mean gives floats, not {out}")
    length = math.prod(x.dims[a] for a in checked_axes(planner, "mean", x, dims))
    scale = 1 / length if length else math.nan
    reduce_to(planner, "mean", Reduction("sum", finish="v * p", scale=scale), x, dims, out)


@op("aten.mean.dim", reference=reference.mean_reference, sizes=reduced_sizes, rows=reduced_rows)
def mean_dims(planner: Planner, x: Tensor, dims: list[int] | None, keepdim: bool, dtype: Any, out: Tensor) -> None:
    """Mean of x, of any dtype, over ``dims``; of nothing NaN."""
    _mean(planner, x, dims, out)


@op(
    "aten.mean.default",
    reference=lambda x, dtype: reference.mean_reference(x, None, False, dtype),
    sizes=all_sizes,
)
def mean_all(planner: Planner, x: Tensor, dtype: Any, out: Tensor) -> None:
    """Mean of all elements of x, of any dtype; of nothing NaN."""
    _mean(planner, x, None, out)


def _count_nonzero(planner: Planner, x: Tensor, dims: Axes, out: Tensor) -> None:
    planner.check(out.dtype == "int32", f"count_nonzero gives int32, not {out}")
    of = f"select(0, 1, {nonzero(x)})"
    reduce_to(planner, "count_nonzero", Reduction("sum", "i32", of), x, dims, out)


def _count_sizes(s: Any, x: Tensor, dims: Axes, *rest: Any) -> Any:
    return reduced_sizes(s, x, dims, False)


def _count_rows(cut: Any, x: Tensor, dims: Axes, *rest: Any) -> int | None:
    return reduced_rows(cut, x, dims, False)


@op("aten.count_nonzero.default", reference=reference.count_nonzero_reference, sizes=_count_sizes, rows=_count_rows)
def count_nonzero(planner: Planner, x: Tensor, dim: int | None, out: Tensor) -> None:
    """How many elements are not 0, int32, along ``dim`` or in all of x; NaN counts."""
    _count_nonzero(planner, x, dim, out)


@op(
    "aten.count_nonzero.dim_IntList",
    reference=reference.count_nonzero_reference,
    sizes=_count_sizes,
    rows=_count_rows,
)
def count_nonzero_dims(planner: Planner, x: Tensor, dims: list[int], out: Tensor) -> None:
    """How many elements are not 0, int32, over ``dims``; NaN counts."""
    _count_nonzero(planner, x, dims, out)


# -- any and all ------------------------------------------------------------------------------------------------------


def _holds(planner: Planner, kind: str, x: Tensor, dims: Axes, out: Tensor) -> None:
    """Whether any or all elements are not 0; a bool, or a uint8 of uint8."""
    planner.check(out.dtype in ("bool", "uint8"), f"{kind} gives bools, or uint8 of uint8, not {out}")
    reduce_to(planner, kind, Reduction(kind, "f32" if is_float(x) else "i32"), x, dims, out)


def _every_place(x: Tensor, dims: list[int] | None) -> bool:
    """An empty list reduces nothing here, though in other reductions everything."""
    return dims is not None and not dims


def _holds_sizes(s: Any, x: Tensor, dims: list[int] | None, keepdim: bool, *rest: Any) -> Any:
    return s.of(x) if _every_place(x, dims) else reduced_sizes(s, x, dims, keepdim)


def _holds_rows(cut: Any, x: Tensor, dims: list[int] | None, keepdim: bool, *rest: Any) -> int | None:
    return cut.only(x) if _every_place(x, dims) else reduced_rows(cut, x, dims, keepdim)


def _register_holds(kind: str, compute: Callable[..., Any]) -> None:
    @op(f"aten.{kind}.default", reference=compute, sizes=all_sizes)
    def over_all(planner: Planner, x: Tensor, out: Tensor) -> None:
        """Whether any or all elements of x are not 0."""
        _holds(planner, kind, x, None, out)

    @op(f"aten.{kind}.dim", reference=compute, sizes=reduced_sizes, rows=reduced_rows)
    def over_one(planner: Planner, x: Tensor, dim: int, keepdim: bool, out: Tensor) -> None:
        """Whether any or all elements of x along ``dim`` are not 0."""
        _holds(planner, kind, x, dim, out)

    def dims_reference(x: reference.Array, dims: list[int] | None, keepdim: bool) -> Any:
        return x != 0 if dims is not None and not dims else compute(x, dims, keepdim)

    @op(f"aten.{kind}.dims", reference=dims_reference, sizes=_holds_sizes, rows=_holds_rows)
    def over_several(planner: Planner, x: Tensor, dims: list[int] | None, keepdim: bool, out: Tensor) -> None:
        """Whether any or all elements of x over ``dims`` are not 0; an empty list asks each element."""
        if not _every_place(x, dims):
            _holds(planner, kind, x, dims, out)
            return
        planner.check(out.dtype in ("bool", "uint8"), f"{kind} gives bools, or uint8 of uint8, not {out}")
        planner.resize(out)
        dispatch(planner, Reduction(kind, "f32" if is_float(x) else "i32"), x, [], Outs(out))


_register_holds("any", reference.any_reference)
_register_holds("all", reference.all_reference)
