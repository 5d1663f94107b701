"""Values that are written into a tensor where it lies, such as rows of a KV cache at positions that a tensor holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.joining import select_scatter_reference, slice_scatter_reference
from ..reindex.moves import axis_of, replaced
from ..reindex.parts import slice_length, slice_start
from ..reindex.strided import MAX_RANK, coalesce, dispatch_whole_copy, innermost_first
from ..shapes import broadcast, broadcast_strides
from ..sizes import like_first
from ..values import INT32_MAX, IntLike, SymInt, Tensor
from .gathering import OVERRIDES, WORKGROUP, are_runs, combined
from .lookup import checked_places, picks_of
from .masks import put_where
from .put import index_put_reference, put
from .scattering import Reduction
from .store_rows.plan import store_rows

FEW = 64  # indices that an invocation compares its own with
_WORD, _QUAD = 4, 16  # bytes


def index_put_in_place_reference(
    x: np.ndarray, indices: Sequence[np.ndarray | None], values: np.ndarray, accumulate: bool
) -> np.ndarray:
    x[...] = index_put_reference(x, indices, values, accumulate)
    return x


@op("aten.index_put_.default", reference=index_put_in_place_reference, mutates=("x",), sizes=like_first)
def index_put_in_place(
    planner: Planner, x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool, out: Tensor
) -> None:
    """``index_put`` that writes ``x`` itself; ``out`` is ``x``, or becomes a copy of it.

    At most 64 indices cost what the values take; more cost a pass over ``x``, as do values that accumulate, those that
    do not begin and end at 4-byte words, and masks.
    """
    put_in_place(planner, "index_put_", x, indices, values, accumulate)
    _return(planner, x, out)


def put_in_place(
    planner: Planner,
    name: str,
    x: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor,
    accumulate: bool = False,
    wraps: bool = True,
) -> None:
    """``values``, which broadcast to ``x[indices]``, written there or added; ``wraps``: negative indices count back."""
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if [i.dtype for _, i in given] == ["bool"] and not accumulate:
        result = planner.scratch(x.nbytes)
        put_where(planner, x, given[0][1], given[0][0], values, result)
        dispatch_whole_copy(planner, result, x)
    elif accumulate or not _put_few(planner, name, x, indices, values, wraps):
        put(planner, name, x, indices, values, Reduction("add" if accumulate else "set"), x, wraps)


def _put_few(
    planner: Planner, name: str, x: Tensor, indices: Sequence[Tensor | None], values: Tensor, wraps: bool
) -> bool:
    """Whether there are few indices, and whole words at each: then these are written."""
    found = checked_places(planner, name, x, indices, wraps)
    shape = (*found.before, *found.joint, *found.after)
    fits = broadcast(values.dims, shape) == shape and x.dtype == values.dtype
    planner.check(fits, f"{name}: the values {values} do not fit the part of {x} with dims {list(shape)}")
    lanes = max(1, _WORD // x.element.itemsize)
    for unit in ("vec4<u32>", "u32"):
        planner.prepare("indexing/put_rows", overrides=OVERRIDES, template={"unit": unit})
    picks = picks_of(found, indices)
    count = math.prod(found.joint)
    if count > FEW or not picks:
        return False
    views = (found.outer_strides, broadcast_strides(values.dims, shape), *(p.strides for p in picks))
    steps = [p.step for p in picks]
    widths = (("vec4<u32>", _QUAD // x.element.itemsize), ("u32", lanes))
    dims, strides = coalesce(shape, *views)
    fitting = [w for w in widths if are_runs(w[1], dims, strides[:2], strides[2:], steps)]
    if not fitting:
        return False
    unit, times = fitting[0]
    picks = [replace(p, step=p.step // times) for p in picks]
    pick = picks[0] if len(picks) == 1 else combined(planner, shape, picks, wraps)
    dims, (to, source, which) = coalesce(shape, *views[:2], pick.strides)
    planner.check(len(dims) <= MAX_RANK, f"{name}: {len(dims)} dimensions are written; at most {MAX_RANK} work")
    if times > 1:
        dims = (*dims[:-1], dims[-1] // times)
        to, source = ((*(s // times for s in strides[:-1]), 1) for strides in (to, source))
    planner.dispatch(
        "indexing/put_rows",
        planner.grid_1d(math.prod(dims), WORKGROUP),
        {"x": x, "values": values, "index": pick.index},
        {
            "dims": innermost_first(dims, 1),
            "x_strides": innermost_first(to, 0),
            "value_strides": innermost_first(source, 0),
            "index_strides": innermost_first(which, 0),
            "rank": len(dims),
            "n": math.prod(dims),
            "count": count,
            "size": pick.size,
            "step": pick.step,
            "wraps": int(wraps),
        },
        overrides=OVERRIDES,
        template={"unit": unit},
    )
    return True


# -- a run of indices along one dimension --------------------------------------------------------------------


def slice_scatter_in_place_reference(x: np.ndarray, *args: Any) -> np.ndarray:
    x[...] = slice_scatter_reference(x, *args)
    return x


@op("et_webgpu.slice_scatter_.default", reference=slice_scatter_in_place_reference, mutates=("x",), sizes=like_first)
def slice_scatter_in_place(
    planner: Planner,
    x: Tensor,
    source: Tensor,
    dim: int,
    start: IntLike | None,
    end: IntLike | None,
    step: int,
    out: Tensor,
) -> None:
    """``slice_scatter`` with step 1 that writes ``x`` itself; ``out`` is ``x``, or becomes a copy of it."""
    name = "slice_scatter_"
    axis = axis_of(planner, name, x, dim)
    size, length = x.dims[axis], source.dims[axis] if source.rank == x.rank else -1
    planner.check(step == 1 and x.dtype == source.dtype, f"{name} takes step 1 and one dtype, not {x} and {source}")
    fits = source.dims == replaced(x.dims, axis, length) and length <= size
    planner.check(fits, f"{name}: {source} does not fit a part of {x}")
    first, last = 0 if start is None else start, INT32_MAX if end is None else end
    if not planner.building or not isinstance(first, SymInt) | isinstance(last, SymInt):
        agrees = planner.derive(lambda a, b: slice_length(size, a, b, 1) == length, first, last)
        planner.check(agrees, f"{name}: {source} has another size than the part of {x}")
    else:  # no step has said yet what they are
        planner.defer(lambda a, b: slice_length(size, a, b, 1) == length, first, last)
    _store(planner, name, x, source, first, axis, size - length, lambda place: slice_start(size, place))
    _return(planner, x, out)


def select_scatter_in_place_reference(x: np.ndarray, *args: Any) -> np.ndarray:
    x[...] = select_scatter_reference(x, *args)
    return x


@op("et_webgpu.select_scatter_.default", reference=select_scatter_in_place_reference, mutates=("x",), sizes=like_first)
def select_scatter_in_place(planner: Planner, x: Tensor, source: Tensor, dim: int, index: IntLike, out: Tensor) -> None:
    """``select_scatter`` that writes ``x`` itself; ``out`` is ``x``, or becomes a copy of it."""
    name = "select_scatter_"
    axis = axis_of(planner, name, x, dim)
    size = x.dims[axis]
    fits = source.dims == replaced(x.dims, axis) and x.dtype == source.dtype
    planner.check(fits, f"{name}: {source} does not fit a part of {x}")
    planner.require(-size, index, size - 1, f"{name}: the index into dimension {dim} of {x}")
    _store(planner, name, x, source, index, axis, size - 1, lambda place: place % size)
    _return(planner, x, out)


def _store(
    planner: Planner,
    name: str,
    x: Tensor,
    source: Tensor,
    first: IntLike,
    axis: int,
    last: int,
    place: Callable[[int], int],
) -> None:
    """Store from ``first`` on, which moves without a new plan where it is between 0 and ``last``; else by ``place``."""
    as_it_is = planner.derive(lambda value: 0 <= value <= last, first)
    store_rows(planner, name, source, x, first if as_it_is else planner.derive(place, first), axis)


def _return(planner: Planner, x: Tensor, out: Tensor) -> None:
    planner.resize(out)
    if out is not x:
        dispatch_whole_copy(planner, x, out)
