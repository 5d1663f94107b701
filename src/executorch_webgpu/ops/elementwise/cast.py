"""Conversions between dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.same_order import pass_through
from ..values import INT32_MAX, INT32_MIN, ElementType, Tensor
from .unary import apply_unary


def converted(x: np.ndarray, element: ElementType) -> np.ndarray:
    """``x`` as elements of a dtype, as the device converts it, and torch where it says how.

    Floats become integers by cutting off towards zero, and bools by asking for nonzero: NaN is true. Integers of fewer
    bits wrap, and floats are rounded to the nearest, ties to even. What torch leaves open: floats outside of int32
    become the nearest of its integers, from which smaller ones wrap, and NaN becomes 0.
    """
    x = np.asarray(x)
    if element.name == "bool":
        return (x != 0).astype(element.numpy)
    if element.is_float or x.dtype.kind in "iub":
        with np.errstate(all="ignore"):
            return x.astype(element.numpy)
    wide = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=INT32_MAX, neginf=INT32_MIN)
    return np.clip(np.trunc(wide), INT32_MIN, INT32_MAX).astype(np.int64).astype(element.numpy)


@op(
    "dim_order_ops._to_dim_order_copy.default",
    "aten._to_copy.default",
    reference=lambda x, *how: x,  # the output's dtype, which is not an argument, says the rest
    elementwise=True,
    view=True,
)
def to_copy(
    planner: Planner,
    x: Tensor,
    dtype: Any,
    layout: Any,
    device: Any,
    pin_memory: Any,
    non_blocking: Any,
    dim_order: Any,
    out: Tensor,
) -> None:
    """``x`` in the dtype of ``out``; see ``converted``."""
    if x.dtype == out.dtype:
        pass_through(planner, x, out)
    else:
        apply_unary(planner, x, out, "x")


@op(
    "aten.lift_fresh_copy.default",
    "aten.detach_copy.default",
    reference=lambda x: x,
    elementwise=True,
    view=True,
)
def copy_of(planner: Planner, x: Tensor, out: Tensor) -> None:
    """``x`` itself."""
    pass_through(planner, x, out)


@op("aten.contiguous.default", reference=lambda x, memory_format: x, elementwise=True, view=True)
def contiguous(planner: Planner, x: Tensor, memory_format: Any, out: Tensor) -> None:
    """``x`` itself; tensors are row-major here."""
    pass_through(planner, x, out)


@op("aten.dropout.default", reference=lambda x, p, train: x, elementwise=True, view=True)
def dropout(planner: Planner, x: Tensor, p: float, train: bool, out: Tensor) -> None:
    """``x`` itself, where the model was not exported for training."""
    planner.check(not train or p == 0, "dropout draws random numbers while it trains: export the model in eval mode")
    pass_through(planner, x, out)
