"""Indices that are out of range: refused where the host sees them, and in references; kernels clamp other ones."""

from __future__ import annotations

import numpy as np

from ...errors import InvalidInputError
from ..plan import Planner
from ..values import Tensor


def check_indices(planner: Planner, name: str, index: Tensor, size: int, wraps: bool) -> None:
    """Refuse an index that is no integer, and one outside of ``size`` elements that an input of the program holds.

    ``wraps``: negative indices count from the end.
    """
    planner.check(index.dtype == "int32", f"{name}: the indices {index} must be integers")
    planner.check(size > 0 or index.numel == 0, f"{name}: {index} has indices into a dimension without elements")
    low = -size if wraps else 0

    def check(given: np.ndarray | None) -> bool:
        if given is not None and given.size and not low <= given.min() <= given.max() < size:
            bad = int(given[(given < low) | (given >= size)].flat[0])
            raise InvalidInputError(f"{name}: index {bad} is out of range: it must be between {low} and {size - 1}")
        return True

    planner.inspect(index, check)


def in_range(index: np.ndarray, size: int, wraps: bool) -> np.ndarray:
    """Indices into ``size`` elements, counted from the front. Raises IndexError for one that is out of range."""
    index = np.asarray(index)
    low = -size if wraps else 0
    if index.size and not low <= int(index.min()) <= int(index.max()) < size:
        raise IndexError(f"an index is out of range: it must be between {low} and {size - 1}")
    return np.where(index < 0, index + size, index) if wraps else index
