"""Operators that make a tensor from numbers: one value everywhere, or evenly spaced ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..elementwise.element import as_scalar
from ..plan import Planner
from ..registry import op
from ..rows import Cut, counted
from ..shapes import ceil_div
from ..sizes import listed
from ..values import INT32_MAX, INT32_MIN, Dims, IntLike, SymInt, Tensor

WORKGROUP = 64
_QUAD = 16  # bytes of a vec4<u32>, and what buffers are padded to

Number = int | float | SymInt


def _unknown(planner: Planner, *values: Number) -> bool:
    """Whether, at load, a number that an input holds is not there yet; everything has its maximum dims then."""
    return planner.building and any(isinstance(v, SymInt) and v.value == 0 for v in values)


def element_word(value: int | float, out: Tensor) -> int:
    """A 32-bit word of ``out`` whose elements are all ``value``, which integers can hold; a large float is inf."""
    layout = out.element.numpy
    with np.errstate(over="ignore"):
        if out.dtype == "bool":
            element = np.array(value != 0, layout)
        elif out.element.is_float:
            element = np.array(value, np.float64).astype(layout)
        else:
            element = np.array(int(value), layout)
    return int(np.tile(element.reshape(1), 4 // out.element.itemsize).view(np.uint32)[0])


def _fill(planner: Planner, value: Number, out: Tensor, dims: Dims | None = None) -> None:
    """``out`` is ``value`` everywhere; integers are cut off towards zero."""
    number = planner.value(value)
    planner.check(math.isfinite(number) or out.element.is_float or out.dtype == "bool", f"{out} cannot hold {number}")
    if limits := out.element.integer_limits:
        planner.check(
            limits[0] <= int(number) <= limits[1],
            f"{out} cannot hold {number}: integers have up to 32 bits on the device, so keep this operator out of the "
            "delegate",
        )
    planner.resize(out, dims)
    quads = ceil_div(out.nbytes, _QUAD)
    planner.dispatch(
        "fill/fill",
        planner.grid_1d(quads, WORKGROUP),
        {"out": out},
        {"quads": quads, "word": element_word(number, out)},
        overrides={"wg_size": WORKGROUP},
    )


def _fill_size(planner: Planner, size: Sequence[IntLike], value: Number, out: Tensor) -> None:
    stated = planner.dims_of(out)
    dims = out.max_dims if _unknown(planner, *size) else stated
    planner.check(min(dims, default=0) >= 0, f"{out} cannot have the dims {list(dims)}")
    _fill(planner, value, out, dims)


def filled_rows(cut: Cut, size: list[IntLike], *rest: Any) -> int | None:
    return counted(cut, size)


@op(
    "aten.full.default",
    reference=lambda size, value, dtype, layout, device, pin_memory: np.full(size, value),
    sizes=listed,
    rows=filled_rows,
)
def full(
    planner: Planner,
    size: list[IntLike],
    value: Number,
    dtype: Any,
    layout: Any,
    device: Any,
    pin_memory: Any,
    out: Tensor,
) -> None:
    """``value`` everywhere, with dims ``size``; any dtype."""
    _fill_size(planner, size, value, out)


@op(
    "aten.full_like.default",
    reference=lambda x, value, dtype, layout, device, pin_memory, memory_format: np.full(x.shape, value),
    elementwise=True,
)
def full_like(
    planner: Planner,
    x: Tensor,
    value: Number,
    dtype: Any,
    layout: Any,
    device: Any,
    pin_memory: Any,
    memory_format: Any,
    out: Tensor,
) -> None:
    """``value`` everywhere, with the dims of ``x``; any dtype."""
    _fill(planner, value, out)


@op(
    "aten.scalar_tensor.default",
    reference=lambda value, dtype, layout, device, pin_memory: np.asarray(value),
    sizes=lambda s, *args: (),
)
def scalar_tensor(
    planner: Planner, value: Number, dtype: Any, layout: Any, device: Any, pin_memory: Any, out: Tensor
) -> None:
    """``value`` as a tensor without dimensions; any dtype."""
    _fill(planner, value, out)


def _register_constant(name: str, value: int) -> None:
    """zeros or ones: full and full_like without the value."""

    @op(
        f"aten.{name}.default",
        reference=lambda size, dtype, layout, device, pin_memory: np.full(size, value),
        sizes=listed,
        rows=filled_rows,
    )
    def plan(
        planner: Planner, size: list[IntLike], dtype: Any, layout: Any, device: Any, pin_memory: Any, out: Tensor
    ) -> None:
        _fill_size(planner, size, value, out)

    @op(
        f"aten.{name}_like.default",
        reference=lambda x, dtype, layout, device, pin_memory, memory_format: np.full(x.shape, value),
        elementwise=True,
    )
    def plan_like(
        planner: Planner,
        x: Tensor,
        dtype: Any,
        layout: Any,
        device: Any,
        pin_memory: Any,
        memory_format: Any,
        out: Tensor,
    ) -> None:
        _fill(planner, value, out)


_register_constant("zeros", 0)
_register_constant("ones", 1)


def arange_length(start: int | float, end: int | float, step: int | float) -> int:
    """How many numbers there are from ``start`` up, or down, to ``end``, which is left out."""
    steps = (end - start) / step
    return math.ceil(steps) if math.isfinite(steps) else INT32_MAX


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
    """``start``, ``start + step``, ... as far as they lie before ``end``; float32 or int32."""
    first, last, by = (planner.value(v) for v in (start, end, step))
    planner.check(out.dtype in ("float32", "int32"), f"arange: {out} must be float32 or int32")
    planner.check(all(math.isfinite(v) for v in (first, last, by)), f"arange: {first}, {last} and {by} must be finite")
    planner.check(by != 0, "arange: the step must not be 0")
    unknown = _unknown(planner, start, end)
    planner.check((last - first) * by >= 0 or unknown, f"arange: steps of {by} do not lead from {first} to {last}")
    planner.resize(out, out.max_dims if unknown else [arange_length(first, last, by)])
    if out.dtype == "int32":
        whole = all(float(v).is_integer() and INT32_MIN <= v <= INT32_MAX for v in (first, last, by))
        planner.check(whole, f"arange: {first}, {last} and {by} must be 32-bit integers, as {out} is")
    planner.dispatch(
        "fill/arange",
        planner.grid_1d(out.numel, WORKGROUP),
        {"out": out},
        {"n": out.numel, "start": as_scalar(first, out.wgsl), "step": as_scalar(by, out.wgsl)},
        overrides={"wg_size": WORKGROUP},
        template={"element": out.wgsl},
    )
