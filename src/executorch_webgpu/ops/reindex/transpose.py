"""Copies that exchange the innermost dimension: through tiles in workgroup memory where they are large."""

from __future__ import annotations

import math

from ..plan import Planner
from ..shapes import ceil_div
from ..values import Tensor
from .strided import Copy, checked, dispatch_copy, innermost_first, prepare_copy

KERNEL = "reindex/tiled_transpose"
TILES = {1: 32, 2: 64, 4: 64}  # elements along both dimensions of a tile, by elements of a word
SMALLEST = 8  # elements along both dimensions; fewer leave most of a tile empty
LARGE = 2**14  # elements of a copy that does not fit in caches anyway
_WORD = 4  # bytes


def dispatch_transpose(planner: Planner, x: Tensor, out: Tensor, copy: Copy) -> None:
    """Run ``copy``, whose view of ``out`` is all of ``out``, in order.

    Routes: ``tiled``, for elements that lie in x along another dimension than in ``out``, whose rows are whole words;
    ``plain``, which is faster where a device reads through large caches, as a CPU does.
    """
    lanes = max(1, _WORD // x.element.itemsize)
    for aligned in (True, False) if lanes > 1 else (True,):
        planner.prepare(KERNEL, template={"lanes": lanes, "aligned": aligned})
    prepare_copy(planner, x)
    found = checked(planner, x, out, copy)
    axis = _inner(found)
    if axis is not None and found.dims[-1] % lanes == 0:
        order = ("plain", "tiled") if planner.features.cpu else ("tiled", "plain")
        if planner.choose("transpose", dict.fromkeys(order, True)) == "tiled":
            _dispatch_tiles(planner, x, out, found, axis, lanes)
            return
    dispatch_copy(planner, x, out, copy)


def _inner(copy: Copy) -> int | None:
    """The dimension along which x lies in runs, if ``out`` does along another one, and both are worth a tile."""
    if len(copy.dims) < 2 or copy.out_strides[-1] != 1 or math.prod(copy.dims) < LARGE or copy.start is not None:
        return None
    axes = [axis for axis, step in enumerate(copy.x_strides[:-1]) if step == 1 and copy.dims[axis] >= SMALLEST]
    return axes[0] if axes and copy.x_strides[-1] != 1 and copy.dims[-1] >= SMALLEST else None


def _dispatch_tiles(planner: Planner, x: Tensor, out: Tensor, copy: Copy, axis: int, lanes: int) -> None:
    others = [a for a in range(len(copy.dims) - 1) if a != axis]
    dims = [copy.dims[a] for a in others]
    width, height = copy.dims[-1], copy.dims[axis]
    tile = TILES[lanes]
    aligned = not any(n % lanes for n in (*copy.x_strides[:axis], *copy.x_strides[axis + 1 :], copy.x_base))
    groups = math.prod(dims) * ceil_div(width, tile) * ceil_div(height, tile)
    planner.dispatch(
        KERNEL,
        planner.grid_1d(groups, 1),
        {"x": x, "out": out},
        {
            "dims": innermost_first(dims, 1),
            "x_strides": innermost_first([copy.x_strides[a] for a in others], 0),
            "out_strides": innermost_first([copy.out_strides[a] for a in others], 0),
            "rank": len(dims),
            "groups": groups,
            "width": width,
            "height": height,
            "x_step": copy.x_strides[-1],
            "out_step": copy.out_strides[axis],
            "x_base": copy.x_base,
            "out_base": copy.out_base,
            **({} if aligned else {"last": ceil_div(x.nbytes, _WORD) - 1}),
        },
        template={"lanes": lanes, "aligned": aligned},
    )
