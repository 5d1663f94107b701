"""Conversions between dtypes."""

from __future__ import annotations

from typing import Any

from ..plan import Planner
from ..registry import op
from ..reindex.same_order import pass_through
from ..values import Tensor
from .unary import apply_unary


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
    """``x`` in the dtype of ``out``: floats are cut off towards zero, and whatever is not 0 is true."""
    if x.dtype == out.dtype:
        pass_through(planner, x, out)
    else:
        apply_unary(planner, x, out, "!(x == V(0))" if out.dtype == "bool" else "x")
