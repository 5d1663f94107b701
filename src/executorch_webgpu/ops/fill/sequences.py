"""Evenly spaced numbers, and the matrix with ones on its diagonal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..elementwise.element import as_scalar
from ..plan import Planner
from ..registry import op
from ..shapes import ceil_div
from ..sizes import Found, Sizes
from ..values import INT32_MAX, INT32_MIN, Dims, IntLike, SymInt, Tensor

WORKGROUP = 64
Number = int | float | SymInt


def is_unknown(planner: Planner, *values: Number) -> bool:
    """Whether, at load, a number that an input holds is not there yet; everything has its maximum dims then."""
    return planner.building and any(isinstance(v, SymInt) and v.value == 0 for v in values)


def _sequence(planner: Planner, out: Tensor, expression: str, p: float, q: float, r: float = 0, count: int = 0) -> None:
    """``out`` = ``expression`` of the places ``i`` of its elements, p, q, r and ``count``."""
    compute = "f32" if out.element.is_float or expression == _SPACED else "i32"
    numbers = {name: as_scalar(value, compute) for name, value in zip("pqr", (p, q, r), strict=True)}
    planner.dispatch(
        "fill/sequence",
        planner.grid_1d(ceil_div(out.numel, 4), WORKGROUP),
        {"out": out},
        {"n": out.numel, "count": count, **numbers},
        overrides={"wg_size": WORKGROUP},
        template={"out": out.dtype, "compute": compute, "expression": expression},
    )


def arange_length(start: int | float, end: int | float, step: int | float) -> int:
    """How many numbers there are from ``start`` up, or down, to ``end``, which is left out."""
    steps = (end - start) / step
    return math.ceil(steps) if math.isfinite(steps) else INT32_MAX


def _arange(planner: Planner, start: Number, end: Number, step: Number, out: Tensor) -> None:
    first, last, by = (planner.value(v) for v in (start, end, step))
    planner.check(out.dtype != "bool", f"arange: {out} cannot hold bools")
    planner.check(all(math.isfinite(v) for v in (first, last, by)), f"arange: {first}, {last} and {by} must be finite")
    planner.check(by != 0, "arange: the step must not be 0")
    unknown = is_unknown(planner, start, end)
    planner.check((last - first) * by >= 0 or unknown, f"arange: steps of {by} do not lead from {first} to {last}")
    planner.resize(out, out.max_dims if unknown else [arange_length(first, last, by)])
    if not out.element.is_float:
        whole = all(float(v).is_integer() and INT32_MIN <= v <= INT32_MAX for v in (first, last, by))
        planner.check(whole, f"arange: {first}, {last} and {by} must be 32-bit integers, as {out} is")
    _sequence(planner, out, "p + V(i) * q", first, by)


@op(
    "aten.arange.start_step",
    reference=lambda start, end, step, dtype, layout, device, pin_memory: np.arange(start, end, step),
)
def arange(
    planner: Planner,
    start: Number,
    end: Number,
    step: Number,
    dtype: Any,
    layout: Any,
    device: Any,
    pin_memory: Any,
    out: Tensor,
) -> None:
    """``start``, ``start + step``, ... as far as they lie before ``end``; any dtype but bool, small integers wrap."""
    _arange(planner, start, end, step, out)


@op("aten.arange.start", reference=lambda start, end, dtype, layout, device, pin_memory: np.arange(start, end))
def arange_from(
    planner: Planner, start: Number, end: Number, dtype: Any, layout: Any, device: Any, pin_memory: Any, out: Tensor
) -> None:
    """``start``, ``start + 1``, ... as far as they lie before ``end``."""
    _arange(planner, start, end, 1, out)


@op("aten.arange.default", reference=lambda end, dtype, layout, device, pin_memory: np.arange(end))
def arange_to(
    planner: Planner, end: Number, dtype: Any, layout: Any, device: Any, pin_memory: Any, out: Tensor
) -> None:
    """0, 1, ... as far as they lie before ``end``."""
    _arange(planner, 0, end, 1, out)


_SPACED = "select(r - V(params.count - 1u - i) * q, p + V(i) * q, i < vec4<u32>((params.count + 1u) / 2u))"


def linspace_sizes(s: Sizes, start: Number, end: Number, steps: IntLike, *rest: Any) -> Found:
    return (s.value(steps),)


@op(
    "aten.linspace.default",
    reference=lambda start, end, steps, dtype, layout, device, pin_memory: np.linspace(start, end, steps),
    sizes=linspace_sizes,
)
def linspace(
    planner: Planner,
    start: int | float,
    end: int | float,
    steps: IntLike,
    dtype: Any,
    layout: Any,
    device: Any,
    pin_memory: Any,
    out: Tensor,
) -> None:
    """``steps`` evenly spaced numbers from ``start`` to ``end``, both of which are among them."""
    count = planner.value(steps)
    planner.check(count >= 0 and out.rank == 1, f"linspace: there cannot be {count} steps in {out}")
    if is_unknown(planner, steps):
        count = out.max_dims[0]
    planner.resize(out, [count])
    _sequence(planner, out, _SPACED, start, (end - start) / max(count - 1, 1), end, count)


def _eye(planner: Planner, rows: IntLike, columns: IntLike, out: Tensor) -> None:
    dims: Dims = planner.values([rows, columns])
    planner.check(out.rank == 2 and min(dims) >= 0, f"eye: {out} cannot have the dims {list(dims)}")
    if is_unknown(planner, rows, columns):
        dims = out.max_dims
    planner.resize(out, dims)
    diagonal = "V(i / vec4<u32>(max(params.count, 1u)) == i % vec4<u32>(max(params.count, 1u)))"
    _sequence(planner, out, diagonal, 0, 0, 0, dims[1])


@op(
    "aten.eye.default",
    reference=lambda n, dtype, layout, device, pin_memory: np.eye(n),
    sizes=lambda s, n, *rest: (s.value(n), s.value(n)),
)
def eye(planner: Planner, n: IntLike, dtype: Any, layout: Any, device: Any, pin_memory: Any, out: Tensor) -> None:
    """[n, n] with ones on the diagonal and zeros elsewhere; any dtype."""
    _eye(planner, n, n, out)


@op(
    "aten.eye.m",
    reference=lambda n, m, dtype, layout, device, pin_memory: np.eye(n, m),
    sizes=lambda s, n, m, *rest: (s.value(n), s.value(m)),
)
def eye_of_two(
    planner: Planner, n: IntLike, m: IntLike, dtype: Any, layout: Any, device: Any, pin_memory: Any, out: Tensor
) -> None:
    """[n, m] with ones on the diagonal and zeros elsewhere; any dtype."""
    _eye(planner, n, m, out)
