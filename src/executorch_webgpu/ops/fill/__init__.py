"""Operators that make a tensor from numbers: one value everywhere, or evenly spaced ones (``sequences``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut, counted
from ..shapes import ceil_div
from ..sizes import listed
from ..values import Dims, IntLike, Tensor
from . import sequences
from .sequences import Number, is_unknown

__all__ = ["element_word", "filled_rows", "sequences"]

WORKGROUP = 64
_QUAD = 16  # bytes of a vec4<u32>, and what buffers are padded to


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
    dims = out.max_dims if is_unknown(planner, *size) else stated
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


@op("aten.fill.Scalar", reference=lambda x, value: np.full(x.shape, value), elementwise=True)
def fill(planner: Planner, x: Tensor, value: Number, out: Tensor) -> None:
    """``value`` everywhere, with the dims of ``x``; any dtype."""
    _fill(planner, value, out)


@op(
    "aten.empty.memory_format",
    "dim_order_ops._empty_dim_order.default",
    reference=lambda size, dtype, layout, device, pin_memory, memory_format: np.zeros(size),
    sizes=listed,
    rows=filled_rows,
)
def empty(
    planner: Planner,
    size: list[IntLike],
    dtype: Any,
    layout: Any,
    device: Any,
    pin_memory: Any,
    memory_format: Any,
    out: Tensor,
) -> None:
    """Zeros, with dims ``size``, so that what nobody has written is the same in every call; any dtype."""
    _fill_size(planner, size, 0, out)
