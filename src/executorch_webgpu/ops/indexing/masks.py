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


def put_where(planner: Planner, x: Tensor, mask: Tensor, axis: int, values: Tensor, out: Tensor | Scratch) -> None:
    """``out`` is ``x`` with values where ``mask``, which has the dims of ``x`` from ``axis`` on, holds.

    ``values`` broadcast to ``x`` with one dimension, of size 1, in place of those of the mask.
    """
    after = axis + mask.rank
    planner.check(x.dims[axis:after] == mask.dims, f"the mask {mask} does not fit {x} from dimension {axis} on")
    chosen = (*x.dims[:axis], 1, *x.dims[after:])
    fits = broadcast(values.dims, chosen) == chosen
    planner.check(fits, f"the values {values} are not the same for all elements that {mask} selects")
    of_mask = (*(0,) * axis, *row_major_strides(mask.dims), *(0,) * (x.rank - after))
    steps = broadcast_strides(values.dims, chosen)
    of_values = (*steps[:axis], *(0,) * mask.rank, *steps[axis + 1 :])
    _fill(planner, x, x.dims, row_major_strides(x.dims), mask, of_mask, values, of_values, out)


def _fill(
    planner: Planner,
    x: Tensor,
    dims: Dims,
    x_strides: Dims,
    mask: Tensor,
    mask_strides: Dims,
    values: Tensor | int | float,
    value_strides: Dims,
    out: Tensor | Scratch,
) -> None:
    planner.check(mask.dtype == "bool", f"the mask {mask} must hold bools")
    alike = not isinstance(out, Tensor) or x.dtype == out.dtype
    planner.check(alike, f"{x} and {out} must have the same dtype")
    n = math.prod(dims)
    bindings: dict[str, Binding] = {"x": x, "mask": mask, "out": out}
    if isinstance(values, Tensor):
        planner.check(values.dtype == x.dtype, f"the values {values} must have the dtype of {x}")
        bindings["values"] = values
    dims, (x_strides, mask_strides, value_strides) = coalesce(dims, x_strides, mask_strides, value_strides)
    planner.check(len(dims) <= MAX_RANK, f"masking {x} takes {len(dims)} dimensions; at most {MAX_RANK} work")
    lanes = max(1, 4 // x.element.itemsize)
    planner.dispatch(
        "indexing/masked",
        planner.grid_1d(ceil_div(n, lanes), WORKGROUP),
        bindings,
        {
            "dims": innermost_first(dims, 1),
            "x_strides": innermost_first(x_strides, 0),
            "mask_strides": innermost_first(mask_strides, 0),
            "value_strides": innermost_first(value_strides, 0),
            "rank": len(dims),
            "n": n,
            "number": word_of(values, x),
        },
        overrides=OVERRIDES,
        template={"lanes": lanes, "number": not isinstance(values, Tensor)},
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
    _fill(planner, x, out.dims, strides[0], mask, strides[1], value, (0,) * out.rank, out)


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
