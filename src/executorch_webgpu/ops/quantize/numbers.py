"""What quantization computes, in NumPy: codes jump, so they are made in float32; more bits would give others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..values import INT32_MAX, INT32_MIN

Array = np.ndarray

LARGEST_CODE = INT32_MAX - 127  # the largest int32 that is a float32
RANGES = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767), "int32": (INT32_MIN, INT32_MAX)}
# How programs write the dtypes of codes down: torch's ScalarType.
SCALAR_TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32"}


def float32(x: Any) -> Array:
    """``x`` as float32, whatever it was."""
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(np.float32)


def inverse(scale: float) -> float:
    """1 / scale; of 0 inf, as torch has it of tensors."""
    return 1 / scale if scale else math.inf


def codes(x: Array, low: float, high: float) -> Array:
    """Integers between ``low`` and ``high``, int64; NaN becomes the lowest integer of int32, which bytes have as 0."""
    bounded = np.minimum(np.maximum(np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf), low), high)
    whole = np.clip(bounded.astype(np.float64), INT32_MIN, LARGEST_CODE).astype(np.int64)
    return np.where(np.isnan(x), INT32_MIN, whole)


def quantized(x: Array, scale: Array, zero: Array, low: float, high: float, *, shifted: bool = False) -> Array:
    """round(x / scale) + zero; ``shifted``: zero is added before it is rounded."""
    with np.errstate(all="ignore"):
        return quantized_by(x, np.float32(1) / float32(scale), zero, low, high, shifted=shifted)


def quantized_by(x: Array, factor: Any, zero: Any, low: float, high: float, *, shifted: bool = False) -> Array:
    """round(x * factor) + zero, with a half to the even integer."""
    with np.errstate(all="ignore"):
        product, zero = float32(x) * float32(factor), float32(zero)
        return codes(np.round(product + zero) if shifted else np.round(product) + zero, low, high)


def dequantized(x: Array, scale: Any, zero: Any) -> Array:
    """(x - zero) * scale, whose product of two float32 is exact here."""
    with np.errstate(all="ignore"):
        return (float32(x) - float32(zero)).astype(np.float64) * float32(scale)


def dequantized_exactly(x: Array, scale: Array, zero: Array) -> Array:
    """(x - zero) * scale with an exact difference, if both are integers."""
    if zero.dtype.kind == "f":
        return dequantized(x, scale, zero)
    return dequantized(x.astype(np.int64) - zero.astype(np.int64), scale, 0)
