"""A batch norm behind a convolution, which at load becomes a part of the weights and of the bias."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..values import Tensor

Array = np.ndarray


@dataclass(frozen=True)
class BatchNorm:
    """(x - ``mean``) / sqrt(``variance`` + ``eps``) * ``weight`` + ``bias``, by output channel; all are constants."""

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    variance: Tensor
    eps: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(t for t in (self.weight, self.bias, self.mean, self.variance) if t is not None)

    @property
    def layout(self) -> str:
        """What names the arrays that follow from the tensors."""
        given = [name for name, t in (("weight", self.weight), ("bias", self.bias)) if t is not None]
        return f"a batch norm with {given} and eps {self.eps}"

    def scale(self, arrays: Sequence[Array]) -> Array:
        """What each channel is multiplied by, of the ``tensors``' arrays; float64."""
        weight, _, _, variance = self._each(arrays)
        with np.errstate(all="ignore"):
            return (1.0 if weight is None else weight) / np.sqrt(variance + self.eps)

    def shift(self, arrays: Sequence[Array], before: Array | float) -> Array:
        """What is added to each channel afterwards, where ``before`` was added before; float64."""
        _, bias, mean, _ = self._each(arrays)
        with np.errstate(all="ignore"):
            return (before - mean) * self.scale(arrays) + (0.0 if bias is None else bias)

    def _each(self, arrays: Sequence[Array]) -> tuple[Array | None, Array | None, Array, Array]:
        left: Iterator[Array] = (a.astype(np.float64) for a in arrays)
        weight = None if self.weight is None else next(left)
        bias = None if self.bias is None else next(left)
        return weight, bias, next(left), next(left)
