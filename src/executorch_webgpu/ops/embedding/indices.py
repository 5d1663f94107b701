"""The indices of look-ups."""

from __future__ import annotations

import numpy as np

from ...errors import InvalidInputError
from ..plan import Planner
from ..values import Tensor


def check_indices(planner: Planner, indices: Tensor, rows: int) -> None:
    """Reject indices outside the table, if they are an input of the program; kernels clamp other ones."""
    planner.check(indices.dtype == "int32", f"embedding: indices {indices} must be integers")

    def check(given: np.ndarray | None) -> bool:
        if given is not None and given.size and not 0 <= given.min() <= given.max() < rows:
            bad = int(given[(given < 0) | (given >= rows)].flat[0])
            raise InvalidInputError(f"token {bad} is not in the vocabulary of {rows} tokens, 0 to {rows - 1}")
        return True

    planner.inspect(indices, check)
