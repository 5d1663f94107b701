"""Rows of tables that lie in several tensors, since they are too large for one binding."""

from __future__ import annotations

import numpy as np

from ..elementwise.unary import apply_unary
from ..plan import Planner
from ..registry import op
from ..values import Tensor
from .indices import check_indices


def index_in_part_reference(indices: np.ndarray, start: int, rows: int, of_rows: int) -> np.ndarray:
    return np.clip(indices - start, 0, rows - 1)


@op("et_webgpu.index_in_part.default", reference=index_in_part_reference, elementwise=True)
def index_in_part(planner: Planner, indices: Tensor, start: int, rows: int, of_rows: int, out: Tensor) -> None:
    """Where ``indices`` into a table of ``of_rows`` rows are in its part of ``rows`` rows from ``start``; int32.

    An index into another part becomes the nearest row of this one. InvalidInputError for an index outside of the
    table that the program is given. No program states this operator: loads put it before parts of large tables.
    """
    check_indices(planner, indices, of_rows)
    apply_unary(planner, indices, out, "clamp(x, V(p), V(q)) - V(p)", start, start + rows - 1)
