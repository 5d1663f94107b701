"""Operators that hold elements between numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..values import Tensor
from .element import as_scalar, compute_type
from .unary import Scalar, apply_unary


def clamp_reference(x: np.ndarray, low: Scalar | None, high: Scalar | None) -> Any:
    raised = x if low is None else np.maximum(x, low)
    return raised if high is None else np.minimum(raised, high)


def _clamp(planner: Planner, x: Tensor, low: Scalar | None, high: Scalar | None, out: Tensor) -> None:
    bounds = [b for b in (low, high) if b is not None and math.isfinite(b)]
    p, q = -math.inf if low is None else low, math.inf if high is None else high
    compute = compute_type([x, out], bounds)
    if math.isnan(p) or math.isnan(q):  # bounds everything, as in torch
        apply_unary(planner, x, out, "nan_where((x == x) | (x != x), x, x)")
    elif compute == "i32":  # a bound beyond all integers bounds none
        p, q = as_scalar(p, compute), as_scalar(q, compute)
        apply_unary(planner, x, out, "min(max(x, p), q)", p, q, compute=compute)
    else:  # min and max would drop the NaN of x
        apply_unary(planner, x, out, "keep_nan(x, min(max(x, p), q))", p, q, compute=compute)


@op(
    "aten.clamp.default",
    "aten.hardtanh.default",
    reference=clamp_reference,
    promoted=("x", "low", "high"),
    elementwise=True,
)
def clamp(planner: Planner, x: Tensor, low: Scalar | None, high: Scalar | None, out: Tensor) -> None:
    """``x`` held between ``low`` and ``high``, either of which may be None; ``high`` wins a crossing."""
    _clamp(planner, x, low, high, out)


@op("aten.clamp_min.default", reference=np.maximum, promoted=("x", "low"), elementwise=True)
def clamp_min(planner: Planner, x: Tensor, low: Scalar, out: Tensor) -> None:
    """``x``, or ``low`` where it is less."""
    _clamp(planner, x, low, None, out)


@op("aten.clamp_max.default", reference=np.minimum, promoted=("x", "high"), elementwise=True)
def clamp_max(planner: Planner, x: Tensor, high: Scalar, out: Tensor) -> None:
    """``x``, or ``high`` where it is more."""
    _clamp(planner, x, None, high, out)


@op("aten.relu6.default", reference=lambda x: np.clip(x, 0, 6), promoted=("x",), elementwise=True)
def relu6(planner: Planner, x: Tensor, out: Tensor) -> None:
    """``x`` held between 0 and 6."""
    _clamp(planner, x, 0, 6, out)
