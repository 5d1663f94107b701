"""Operators that write elements where a mask of bools holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..registry import op
from ..reindex.strided import MAX_RANK, coalesce, innermost_first
from ..rows import broadcast as broadcast_rows
from ..shapes import broadcast, broadcast_strides, ceil_div, row_major_strides
from ..sizes import Found, Sizes
from ..values import Dims, Tensor
from .gathering import OVERRIDES, WORKGROUP
from .scattering import word_of


def put_where(planner: Planner, x: Tensor, mask: Tensor, axis: int, value: Tensor | int | float, out: Tensor) -> None:
    """``out`` is ``x`` with one value where ``mask``, which has the dims of ``x`` from ``axis`` on, holds."""
    planner.check(x.dims[axis : axis + mask.rank] == mask.dims, f"the mask {mask} does not fit {x} from {axis} on")
    strides = (*(0,) * axis, *row_major_strides(mask.dims), *(0,) * (x.rank - axis - mask.rank))
    _fill(planner, x, row_major_strides(x.dims), mask, strides, value, out)


def _fill(
    planner: Planner,
    x: Tensor,
    x_strides: Dims,
    mask: Tensor,
    mask_strides: Dims,
    value: Tensor | int | float,
    out: Tensor,
) -> None:
    planner.check(mask.dtype == "bool" and x.dtype == out.dtype, f"{mask} must hold bools, and {out} be like {x}")
    bindings: dict[str, Binding] = {"x": x, "mask": mask, "out": out}
    if isinstance(value, Tensor):
        fits = value.dtype == x.dtype and math.prod(value.dims) == 1
        planner.check(fits, f"the value {value} must be one element of the dtype of {x}")
        bindings["value"] = value
    dims, (x_strides, mask_strides) = coalesce(out.dims, x_strides, mask_strides)
    planner.check(len(dims) <= MAX_RANK, f"{out} takes {len(dims)} dimensions; at most {MAX_RANK} work")
    lanes = max(1, 4 // x.element.itemsize)
    planner.dispatch(
        "indexing/masked",
        planner.grid_1d(ceil_div(out.numel, lanes), WORKGROUP),
        bindings,
        {
            "dims": innermost_first(dims, 1),
            "x_strides": innermost_first(x_strides, 0),
            "mask_strides": innermost_first(mask_strides, 0),
            "rank": len(dims),
            "n": out.numel,
            "number": word_of(value, x),
        },
        overrides=OVERRIDES,
        template={"lanes": lanes, "number": not isinstance(value, Tensor)},
    )


def masked_sizes(s: Sizes, x: Tensor, mask: Tensor, value: Any, out: Tensor) -> Found:
    return broadcast(s.of(x), s.of(mask))


def masked_fill_reference(x: np.ndarray, mask: np.ndarray, value: Any) -> np.ndarray:
    return np.where(mask != 0, np.asarray(value).astype(x.dtype), x)


@op(
    "aten.masked_fill.Scalar",
    reference=masked_fill_reference,
    sizes=masked_sizes,
    rows=broadcast_rows,
)
def masked_fill(planner: Planner, x: Tensor, mask: Tensor, value: int | float, out: Tensor) -> None:
    """``x`` with ``value`` where the bool ``mask`` holds; the two broadcast."""
    _masked_fill(planner, x, mask, value, out)


@op(
    "aten.masked_fill.Tensor",
    reference=masked_fill_reference,
    sizes=masked_sizes,
    rows=broadcast_rows,
)
def masked_fill_tensor(planner: Planner, x: Tensor, mask: Tensor, value: Tensor, out: Tensor) -> None:
    """``x`` with the one element of ``value`` where the bool ``mask`` holds; ``x`` and ``mask`` broadcast."""
    planner.check(value.rank == 0, f"masked_fill: {value} must have no dimensions")
    _masked_fill(planner, x, mask, value, out)


def _masked_fill(planner: Planner, x: Tensor, mask: Tensor, value: Tensor | int | float, out: Tensor) -> None:
    fits = None not in broadcast(x.dims, mask.dims)
    planner.check(fits, f"masked_fill: {x} and the mask {mask} do not broadcast to a common shape")
    planner.resize(out)
    strides = [broadcast_strides(t.dims, out.dims) for t in (x, mask)]
    _fill(planner, x, strides[0], mask, strides[1], value, out)
