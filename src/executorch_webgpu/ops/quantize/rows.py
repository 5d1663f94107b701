"""Rows of float32 as what their int8 codes stand for: what layers do to their input that quantize it as they run."""

from __future__ import annotations

import numpy as np

from ..plan import Binding, Planner
from .numbers import Array, dequantized, float32, quantized
from .parameters import SMALLEST_NORMAL, Rule

# As torchao chooses parameters for each token: asymmetric, and with no other smallest scale than that of float32.
LOW, HIGH, EPS = -128, 127, SMALLEST_NORMAL["float32"]
RULE = Rule("asymmetric", LOW, HIGH, EPS)


def fake_quantized_rows(x: Array) -> Array:
    """The reference, in float64."""
    if not x.shape[-1]:
        return x
    wide = float32(x)
    scale, zero = RULE.reference(wide.min(axis=-1, keepdims=True), wide.max(axis=-1, keepdims=True))
    zero = zero.astype(np.int8)  # as they are stored
    return dequantized(quantized(wide, scale, zero, LOW, HIGH), scale, zero)


def fake_quantize_rows(planner: Planner, x: Binding, rows: int, width: int) -> Binding:
    """``x`` [rows, width] float32, in memory of this call."""
    out = planner.scratch(4 * rows * width)
    planner.dispatch(
        "quantize/rows",
        planner.grid_1d(rows, 1),
        {"x": x, "out": out},
        {"rows": rows, "width": width, "range": (RULE.low, RULE.high, RULE.eps, RULE.zero)},
        overrides={"wg_size": 256},
    )
    return out
