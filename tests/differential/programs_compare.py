"""When two answers are the same: exactly for integers, bools and shapes, and within a bound for floats. NumPy only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """A float is right if its error is at most ``absolute``, or at most ``relative`` times what is right."""

    absolute: float
    relative: float


Tolerances = Mapping[str, Tolerance]
BFLOAT16 = np.dtype(np.float32, metadata={"bfloat16": True})  # float32 that stands for bfloat16

# The stock kernels and torch differ from each other by some units in the last place of the dtype, more after a sum.
_HOST = {
    "float64": Tolerance(1e-6, 1e-6),  # the exporter writes a number such as 0.1 beside a tensor as float32
    "float32": Tolerance(1e-5, 1e-5),
    "float16": Tolerance(4e-3, 4e-3),
    "bfloat16": Tolerance(3e-2, 3e-2),
}
RULES: dict[str, Tolerances] = {
    "host": _HOST,
    # A delegate computes in float32 what is float64.
    "delegate": _HOST | {"float64": Tolerance(1e-4, 1e-3), "float32": Tolerance(1e-4, 1e-3)},
    # It stores halves where the option force_fp16 was given.
    "half": {name: Tolerance(2e-2, 2e-2) for name in _HOST},
}


def dtype_name(array: np.ndarray) -> str:
    """The dtype's name, "bfloat16" where float32 stands for it."""
    return "bfloat16" if array.dtype.metadata else array.dtype.name


def difference(got: Sequence[Any], wanted: Sequence[Any], tolerances: Tolerances) -> str | None:
    """What is wrong with a step's outputs (NumPy arrays and numbers), in a few words; None if they are right."""
    if len(got) != len(wanted):
        return f"{len(got)} outputs, not {len(wanted)}"
    for position, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if problem := _difference(a, b, tolerances):
            return f"output {position}: {problem}"
    return None


def _difference(got: Any, wanted: Any, tolerances: Tolerances) -> str | None:
    if isinstance(got, np.ndarray) != isinstance(wanted, np.ndarray):
        return f"{type(got).__name__}, not {type(wanted).__name__}"
    if not isinstance(wanted, np.ndarray):
        return None if got == wanted else f"{got!r}, not {wanted!r}"
    if dtype_name(got) != dtype_name(wanted):
        return f"{dtype_name(got)}, not {dtype_name(wanted)}"
    if got.shape != wanted.shape:
        return f"shape {list(got.shape)}, not {list(wanted.shape)}"
    tolerance = tolerances.get(dtype_name(wanted))
    if tolerance is None:
        wrong = got != wanted
    else:
        a, b = got.astype(np.float64), wanted.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            close = np.abs(a - b) <= np.maximum(tolerance.absolute, tolerance.relative * np.abs(b))
        wrong = ~(close | (a == b) | (np.isnan(a) & np.isnan(b)))
    if not np.any(wrong):
        return None
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    return (
        f"{int(np.sum(wrong))} of {wrong.size} elements differ, first {list(where)}: {got[where]}, not {wanted[where]}"
    )


def normalized(message: str) -> str:
    """A message without its numbers, to count messages of one kind."""
    return re.sub(r"\[(?:N(?:, )?)*\]", "[…]", re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "N", message))[:300]
