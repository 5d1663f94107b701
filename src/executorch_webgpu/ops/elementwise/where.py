"""The choice between two tensors, element by element."""

from __future__ import annotations

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.strided import MAX_RANK, coalesce, innermost_first
from ..shapes import broadcast, broadcast_strides, ceil_div
from ..values import Tensor
from .element import WORKGROUP, compute_type


@op(
    "aten.where.self",
    reference=lambda condition, a, b: np.where(condition != 0, a, b),
    promoted=("a", "b"),
    elementwise=True,
)
def where(planner: Planner, condition: Tensor, a: Tensor, b: Tensor, out: Tensor) -> None:
    """``a`` where the bool ``condition`` holds, else ``b``; the three broadcast."""
    planner.check(condition.dtype == "bool", f"where: the condition {condition} must hold bools")
    fits = None not in broadcast(condition.dims, a.dims, b.dims)
    planner.check(fits, f"where: the shapes of {condition}, {a} and {b} do not broadcast to a common one")
    planner.resize(out)
    shape, strides = coalesce(out.dims, *(broadcast_strides(t.dims, out.dims) for t in (condition, a, b)))
    planner.check(len(shape) <= MAX_RANK, f"where: {out} takes {len(shape)} dimensions; at most {MAX_RANK} work")
    condition_strides, a_strides, b_strides = (innermost_first(s, 0) for s in strides)
    planner.dispatch(
        "elementwise/where",
        planner.grid_1d(ceil_div(out.numel, 4), WORKGROUP),
        {"condition": condition, "left": a, "right": b, "out": out},
        {
            "n": out.numel,
            "rank": len(shape),
            "dims": innermost_first(shape, 1),
            "condition_strides": condition_strides,
            "a_strides": a_strides,
            "b_strides": b_strides,
        },
        overrides={"wg_size": WORKGROUP},
        template={"a": a.dtype, "b": b.dtype, "out": out.dtype, "compute": compute_type([a, b, out], [])},
    )
