"""How far a result of the device may be from its float64 reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ops.values import Tensor
from .build import OpCall
from .reference import References

# By dtype of the result: absolute and relative; either one suffices.
TOLERANCES = {"float32": (1e-4, 1e-3), "float16": (2e-3, 2e-3), "bfloat16": (1e-2, 1e-2)}
# Of the largest element of the result, where tensor cores multiply: float32 in parts, or rounded to float16. The latter
# also where one row is multiplied as whole numbers of two bytes.
MATRIX, MATRIX_ROUNDED = 1e-4, 2e-3
PROBABILITIES = 2.0**-11  # attention rounds its probabilities to float16 there, also where products are exact
# Inputs that differ by less than this are the same to float32 arithmetic of a few steps.
_ROUNDING = 2.0**-22
_ROUNDINGS, _MARGIN = 3, 16


@dataclass(frozen=True)
class FurthestOff:
    """The element of a result that is furthest off, by what it may be, and how many are off."""

    index: tuple[int, ...]
    allowed: float
    off: int


def allowed_error(
    call: OpCall, route: str | None, tensor: Tensor, wanted: np.ndarray, steps: np.ndarray | None, rounded: bool
) -> np.ndarray:
    """The error that each element of a result may have.

    ``steps``: of an int8 KV cache, by how much a code of each element counts. ``rounded``: products may take
    numbers of 16 bits.
    """
    magnitude = np.abs(np.where(np.isfinite(wanted), wanted, 0).astype(np.float64))
    if steps is not None:  # a tie may be rounded either way
        return steps * 1.01 + TOLERANCES["float32"][1] * magnitude
    if tensor.dtype in TOLERANCES:
        absolute, relative = TOLERANCES[tensor.dtype]
        allowed = np.maximum(absolute, relative * magnitude)
        if tensor.element.itemsize == 2:  # a chain rounds after each of its steps
            steps_of_chain = call.named.get("steps")
            allowed = allowed * (len(steps_of_chain) if isinstance(steps_of_chain, list) else 1)
        if route is not None and "matrix" in route:
            exact = PROBABILITIES if route.startswith("flash") else MATRIX
            allowed = np.maximum(allowed, (MATRIX_ROUNDED if rounded else exact) * magnitude.max(initial=0))
        elif rounded and route == "gemv_bytes":
            allowed = np.maximum(allowed, MATRIX_ROUNDED * magnitude.max(initial=0))
        return allowed
    return np.zeros(wanted.shape)


def sensitivity(
    references: References, call: OpCall, values: Mapping[int, Any], target: Tensor, wanted: np.ndarray
) -> np.ndarray:
    """By how much each element changes, at most, where the last bits of floating-point inputs do; inf where it jumps.

    Sums that cancel out and codes that are nearly ties differ by that much in float32, however they are computed. What
    is exact does not: comparisons, and positions of elements. So do results within a call, such as steps of a chain.
    """
    if target.dtype in ("int32", "int16", "bool"):
        return np.zeros(wanted.shape)
    random = np.random.default_rng(0)
    largest = np.zeros(wanted.shape)
    for _ in range(_ROUNDINGS):
        moved = {
            id: value * (1 + random.uniform(-_ROUNDING, _ROUNDING, value.shape))
            if isinstance(value, np.ndarray) and value.dtype == np.float64
            else value.copy()
            if isinstance(value, np.ndarray)
            else value
            for id, value in values.items()
        }
        results = {v.id: r for v, r in zip(call.writes, references.results(call, moved, random), strict=True)}
        other = np.asarray({**moved, **results}[target.id])
        if other.shape != wanted.shape:
            return np.full(wanted.shape, np.inf)
        change = np.abs(other.astype(np.float64) - wanted.astype(np.float64))
        same = (other == wanted) | ((other != other) & (wanted != wanted))
        largest = np.maximum(largest, np.where(same, 0, np.nan_to_num(change, nan=np.inf)))
    return largest * _MARGIN


def furthest_off(got: np.ndarray, wanted: np.ndarray, allowed: np.ndarray) -> FurthestOff | None:
    """The element that is furthest off, of arrays of one shape; None where all are right.

    NaN and infinite numbers must be where they are wanted.
    """
    same = (got == wanted) | ((got != got) & (wanted != wanted))
    error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    excess = np.where(same, -np.inf, np.nan_to_num(error, nan=np.inf) - allowed)
    off = ~same & ~(error <= allowed) & (allowed < np.inf)
    if not off.any():
        return None
    place = int(np.argmax(np.where(off, excess, -np.inf)))
    index = tuple(int(i) for i in np.unravel_index(place, got.shape))
    return FurthestOff(index, float(allowed[index]), int(off.sum()))
