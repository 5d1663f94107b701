"""What tensors of int8 codes hold, with the scale and the zero point that a call states for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..plan import Planner
from ..quantize.numbers import Array, dequantized, float32, inverse, quantized_by
from ..values import Tensor


@dataclass(frozen=True)
class Quantized:
    """The parameters of a tensor: a number is (code - zero) * scale."""

    scale: float
    zero: int

    @property
    def factor(self) -> float:
        """The inverse of the scale, as float32 has it."""
        with np.errstate(all="ignore"):
            return float(np.float32(inverse(self.scale)))

    def numbers(self, codes: Array) -> Array:
        """float32."""
        return float32(dequantized(codes, np.float32(self.scale), self.zero))

    def codes(self, numbers: Array, *, relu: bool = False) -> Array:
        """int64."""
        positive = np.maximum(float32(numbers), np.float32(0)) if relu else numbers
        return quantized_by(positive, np.float32(self.factor), self.zero, -128, 127)


def check_int8(planner: Planner, name: str, tensors: list[Tensor], parameters: list[Quantized]) -> None:
    """Refuses tensors of other dtypes, and zero points that are no codes."""
    planner.check(all(t.dtype == "int8" for t in tensors), f"{name} takes int8 tensors, not {tensors}")
    zeros = [p.zero for p in parameters]
    planner.check(all(-128 <= zero <= 127 for zero in zeros), f"{name}: zero points {zeros} must be int8 codes")
