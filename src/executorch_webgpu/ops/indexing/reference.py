"""What becomes of values that go to one place, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .scattering import Reduction

_UFUNCS: dict[str, Any] = {
    "add": np.add,
    "mul": np.multiply,
    "mean": np.add,
    "amax": np.maximum,
    "amin": np.minimum,
}


def reduced_at(x: np.ndarray, place: Any, values: Any, reduction: Reduction) -> np.ndarray:
    """A copy of ``x`` with values put, added, … at a place, in NumPy's terms, one after the other."""
    result = np.array(x)
    if reduction.name == "set":
        result[place] = values
        return result
    adds = reduction.name in ("add", "mean")
    ufunc = np.logical_or if adds and x.dtype.kind == "b" else _UFUNCS[reduction.name]
    taken = np.full(x.shape, int(reduction.include_self), np.int64)
    np.add.at(taken, place, 1)
    if not reduction.include_self:
        result[taken > 0] = _identity(x.dtype, reduction.name)
    # NumPy 2.4 adds what is not there where values broadcast to a place.
    whole = np.array(np.broadcast_to(values, np.shape(x[place])), x.dtype)
    with np.errstate(all="ignore"):
        ufunc.at(result, place, whole if reduction.alpha == 1 else whole * np.asarray(reduction.alpha).astype(x.dtype))
        if reduction.name == "mean" and x.dtype.kind != "b":
            count = np.maximum(taken, 1).astype(x.dtype)  # integers wrap
            result = result / count if x.dtype.kind == "f" else result // np.where(count == 0, 1, count)
    return result.astype(x.dtype)


def _identity(dtype: np.dtype, name: str) -> Any:
    """What changes no result of a reduction."""
    if name in ("add", "mean", "mul"):
        return int(name == "mul")
    if dtype.kind == "f":
        return -np.inf if name == "amax" else np.inf
    if dtype.kind == "b":
        return name == "amin"
    limits = np.iinfo(dtype)
    return limits.min if name == "amax" else limits.max
