"""What the elementwise templates share: the type to compute in, and quiet references."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..plan import Planner
from ..values import INT32_MAX, INT32_MIN, Tensor

WORKGROUP = 256  # fewer workgroups: a device begins about one a clock
FLOAT32_MAX = float(np.finfo(np.float32).max)


def is_float(x: Tensor) -> bool:
    return x.element.is_float


def compute_type(tensors: list[Tensor], scalars: list[Any]) -> str:
    """WGSL type to compute in: i32, unless a tensor has a float dtype or a scalar is not an integer."""
    fractional = any(isinstance(s, float) and not s.is_integer() for s in scalars)
    return "f32" if fractional or any(is_float(t) for t in tensors) else "i32"


def check_scalars(planner: Planner, values: list[Any], compute: str) -> None:
    """Refuse an integer that 32 bits cannot hold, where integers are computed with."""
    for value in values if compute == "i32" else ():
        planner.check(
            INT32_MIN <= value <= INT32_MAX,
            f"the number {value} does not fit in 32 bits, which integers have on the device: keep this operator out of "
            "the delegate, or compute with floats",
        )


def as_scalar(value: int | float, compute: str) -> int | float:
    """``value`` as a kernel parameter of type ``compute``; too large a one is inf, or the nearest integer."""
    if compute == "f32":
        return math.copysign(math.inf, value) if abs(value) > FLOAT32_MAX else float(value)
    return int(min(max(value, INT32_MIN), INT32_MAX))


def quiet(reference: Callable[..., Any]) -> Callable[..., Any]:
    """A reference that gives inf and NaN without NumPy's warnings, as the device does."""

    @functools.wraps(reference)
    def run(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return reference(*args)

    return run
