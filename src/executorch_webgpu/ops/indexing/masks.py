"""Operators that write elements where a mask of bools holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..registry import op
from ..reindex.strided import MAX_RANK, coalesce, contiguous, innermost_first
from ..rows import broadcast as broadcast_rows
from ..shapes import broadcast, broadcast_strides, ceil_div, row_major_strides
from ..sizes import Found, Sizes
from ..values import Dims, Scratch, Tensor
from .gathering import OVERRIDES, WORKGROUP
from .scattering import word_of

CHUNK = 64  # elements of a mask that one invocation counts


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


# -- one value for each place --------------------------------------------------------------------------------


def masked_scatter_reference(x: np.ndarray, mask: np.ndarray, source: np.ndarray) -> np.ndarray:
    joint = np.broadcast_shapes(x.shape, mask.shape)
    result, holds = np.array(np.broadcast_to(x, joint)), np.broadcast_to(mask != 0, joint)
    count = int(holds.sum())
    if count > source.size:
        raise IndexError(f"the mask holds for {count} elements, but there are values for {source.size}")
    result[holds] = source.reshape(-1)[:count]
    return result


@op("aten.masked_scatter.default", reference=masked_scatter_reference, sizes=masked_sizes)
def masked_scatter(planner: Planner, x: Tensor, mask: Tensor, source: Tensor, out: Tensor) -> None:
    """``x`` with the elements of ``source``, in their order, where ``mask`` holds; ``x`` and ``mask`` broadcast.

    Only the device knows how many places there are: those without an element get the last one.
    """
    fits = None not in broadcast(x.dims, mask.dims)
    planner.check(fits, f"masked_scatter: {x} and the mask {mask} do not broadcast to a common shape")
    alike = x.dtype == source.dtype == out.dtype and mask.dtype == "bool"
    planner.check(alike, f"masked_scatter: {source} must have the dtype of {x}, and {mask} hold bools")
    planner.resize(out)
    planner.check(source.numel > 0 or out.numel == 0, f"masked_scatter: {source} has no elements")
    whole: list[Tensor | Scratch] = [
        t if t.dims == out.dims else contiguous(planner, t, out.dims, broadcast_strides(t.dims, out.dims))
        for t in (x, mask)
    ]
    chunks = ceil_div(out.numel, CHUNK)
    offsets = planner.scratch(4 * chunks)
    planner.dispatch(
        "indexing/mask_counts",
        planner.grid_1d(chunks, WORKGROUP),
        {"mask": whole[1], "counts": offsets},
        {"n": out.numel, "chunk": CHUNK, "chunks": chunks},
        overrides=OVERRIDES,
    )
    planner.dispatch("indexing/mask_offsets", (min(chunks, 1),), {"counts": offsets}, {"n": chunks})
    lanes = max(1, 4 // x.element.itemsize)
    planner.dispatch(
        "indexing/masked_scatter",
        planner.grid_1d(ceil_div(out.numel, lanes), WORKGROUP),
        {"x": whole[0], "mask": whole[1], "source": source, "offsets": offsets, "out": out},
        {"n": out.numel, "chunk": CHUNK, "last": source.numel - 1},
        overrides=OVERRIDES,
        template={"lanes": lanes},
    )
