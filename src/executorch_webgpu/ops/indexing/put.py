"""Operators that write elements which indices name, along whole dimensions: index_put and its kin.

An index that the program takes as an input is refused if it is out of range, before anything runs; one that is computed
on the device is clamped. Where indices name a place twice, the last value stays, or all of them count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.moves import axis_of
from ..reindex.strided import coalesce, contiguous
from ..rows import Cut
from ..shapes import broadcast, broadcast_strides, normalize_dim, row_major_strides
from ..sizes import like_first
from ..values import Dims, Scratch, Tensor
from .bounds import check_indices, in_range
from .gathering import Pick, combined
from .lookup import checked_places
from .masks import put_where
from .places import Places, advanced, places_of
from .reference import reduced_at
from .scattering import Reduction, Sources, scatter

_REDUCTIONS = {"prod": "mul", "mean": "mean", "amax": "amax", "amin": "amin"}


def put(
    planner: Planner,
    name: str,
    x: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor | int | float,
    reduction: Reduction,
    out: Tensor,
    wraps: bool = True,
) -> None:
    """``x`` with ``values``, which broadcast to ``x[indices]``, put or added there; ``out`` may be ``x``."""
    found = checked_places(planner, name, x, indices, wraps)
    shape = (*found.before, *found.joint, *found.after)
    if isinstance(values, Tensor):
        fits = broadcast(values.dims, shape) == shape
        planner.check(fits, f"{name}: the values {values} do not broadcast to dims {list(shape)}")
    if out is not x:
        planner.resize(out)
    scatter(planner, x, _sources(planner, found, indices, values, wraps), reduction, out)


def _sources(
    planner: Planner, found: Places, indices: Sequence[Tensor | None], values: Tensor | int | float, wraps: bool
) -> Sources:
    shape = (*found.before, *found.joint, *found.after)
    front, joint = len(found.before), len(found.joint)
    bound: Tensor | Scratch | int | float = values
    strides: Dims = (0,) * len(shape)
    steps: list[Dims] = [(0,)]
    if isinstance(values, Tensor):
        strides = broadcast_strides(values.dims, shape)
        sizes, steps = coalesce(found.joint, strides[front : front + joint])
        if len(sizes) > 1:
            bound, strides = contiguous(planner, values, shape, strides), row_major_strides(shape)
            steps = [strides[front + joint - 1 : front + joint]]
    kept = dict(zip(found.kept, (*strides[:front], *strides[front + joint :]), strict=True))
    sizes_indexed = tuple(found.dims[a] for a in found.indexed)
    compact = dict(zip(found.indexed, row_major_strides(sizes_indexed), strict=True))
    picks = [
        Pick(index, broadcast_strides(index.dims, found.joint), found.dims[axis], compact[axis])
        for axis, index in enumerate(indices)
        if index is not None
    ]
    alone = len(picks) == 1
    pick = picks[0] if alone else combined(planner, found.joint, picks, wraps)
    return Sources(
        pick.index,
        size=max(math.prod(sizes_indexed), 1),
        count=math.prod(found.joint),
        address_strides=tuple(compact.get(a, 0) for a in range(len(found.dims))),
        value_strides=tuple(kept.get(a, 0) for a in range(len(found.dims))),
        values=bound,
        value_step=steps[0][-1] if steps[0] else 0,
        wraps=wraps and alone,
    )


# -- index_put -----------------------------------------------------------------------------------------------


def index_put_reference(
    x: np.ndarray, indices: Sequence[np.ndarray | None], values: np.ndarray, accumulate: bool
) -> np.ndarray:
    return reduced_at(x, advanced(indices), values, Reduction("add" if accumulate else "set"))


def put_rows(cut: Cut, x: Tensor, indices: Sequence[Tensor | None], values: Tensor, *rest: Any) -> int | None:
    """Dimensions of ``x`` without an index, with those of the values, unless these are the same everywhere."""
    axis = cut.axes.get(x.id)
    given = [i for i in indices if i is not None]
    if axis is None or cut.counts or len(indices) > x.rank:
        return None
    if [i.dtype for i in given] == ["bool"]:
        return masked_rows(cut, x.rank, axis, indices.index(given[0]), given[0], values)
    if any(i.dtype != "int32" or i.id in cut.axes for i in given) or not given:
        return None
    found = places_of(x.max_dims, [None if i is None else i.max_dims for i in indices])
    if axis in found.indexed:
        return None
    place = found.kept.index(axis)
    place += len(found.joint) if place >= found.front else 0
    rank = len(found.kept) + len(found.joint)
    of_values = place - (rank - values.rank)
    if values.id in cut.axes:
        return axis if cut.axes[values.id] == of_values else None
    return axis if of_values < 0 or values.max_dims[of_values] == 1 else None


def masked_rows(cut: Cut, rank: int, axis: int, first: int, mask: Tensor, values: Tensor) -> int | None:
    """Dimension ``axis`` of ``rank``, with that of a mask from dimension ``first`` on, or with that of the values."""
    others = {id: a for id, a in cut.axes.items() if id in (mask.id, values.id)}
    if len(cut.axes) != 1 + len(others):
        return None
    if first <= axis < first + mask.rank:
        return axis if others == {mask.id: axis - first} else None
    place = axis if axis < first else axis - mask.rank + 1
    of_values = place - (rank - mask.rank + 1 - values.rank)
    if others:
        return axis if others == {values.id: of_values} else None
    return axis if of_values < 0 or values.max_dims[of_values] == 1 else None


@op(
    "aten.index_put.default",
    "aten._unsafe_index_put.default",
    reference=index_put_reference,
    sizes=like_first,
    rows=put_rows,
)
def index_put(
    planner: Planner, x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool, out: Tensor
) -> None:
    """``x`` with ``values``, which broadcast to ``x[indices]``, there, or added to what is there.

    Index tensors are as in ``index``. A mask of bools is taken where what is put is the same for all that it selects.
    """
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if [i.dtype for _, i in given] == ["bool"] and not accumulate:
        ((axis, mask),) = given
        planner.resize(out)
        put_where(planner, x, mask, axis, values, out)
        return
    put(planner, "index_put", x, indices, values, Reduction("add" if accumulate else "set"), out)


# -- one dimension -------------------------------------------------------------------------------------------


def _along(x: np.ndarray, dim: int, index: np.ndarray, wraps: bool) -> tuple[np.ndarray, tuple[Any, ...]]:
    """``x`` with a dimension at least, and the place of ``index`` along one of them."""
    data = x.reshape(1) if x.ndim == 0 else x
    places = in_range(index.reshape(-1), data.shape[dim], wraps)
    return data, (*(slice(None),) * (dim % data.ndim), places)


def _values_along(data: np.ndarray, source: np.ndarray, dim: int) -> np.ndarray:
    return source if source.ndim == data.ndim else source.reshape(1)


def along_reference(x: np.ndarray, dim: int, index: np.ndarray, source: np.ndarray, reduction: Reduction) -> np.ndarray:
    data, place = _along(x, dim, index, wraps=False)
    return reduced_at(data, place, _values_along(data, source, dim), reduction).reshape(x.shape)


def along_rows(cut: Cut, x: Tensor, dim: int, index: Tensor, source: Tensor, *rest: Any) -> int | None:
    """All dimensions but ``dim``, of both tensors."""
    axis = cut.together([x, source])
    return None if axis == normalize_dim(dim, x.rank) else axis


def _put_along(
    planner: Planner,
    name: str,
    x: Tensor,
    dim: int,
    index: Tensor,
    values: Tensor | int | float,
    reduction: Reduction,
    out: Tensor,
    wraps: bool = False,
) -> None:
    """Puts slices along ``dim``, as many as the vector ``index`` has elements."""
    planner.check(index.rank <= 1, f"{name}: the indices {index} must be a vector")
    planner.check(x.rank > 0 or dim in (0, -1), f"{name}: {x} has no dimension {dim}")
    axis = axis_of(planner, name, x, dim) if x.rank else 0
    if isinstance(values, Tensor) and values.rank == x.rank and (x.rank or index.rank):
        shape = (*x.dims[:axis], index.numel, *x.dims[axis + 1 :])
        fits = values.dims == shape or (x.rank == 0 and values.numel == index.numel)
        planner.check(fits, f"{name}: {values} must have the dims {list(shape)}")
    if x.rank == 0:
        check_indices(planner, name, index, 1, wraps)
        planner.resize(out)
        line = Sources(index, 1, index.numel, (), (), values, 1 if isinstance(values, Tensor) else 0, wraps=wraps)
        scatter(planner, x, line, reduction, out)
        return
    put(planner, name, x, [*(None,) * axis, index], values, reduction, out, wraps)


@op(
    "aten.index_copy.default",
    reference=lambda x, dim, index, source: along_reference(x, dim, index, source, Reduction()),
    sizes=like_first,
    rows=along_rows,
)
def index_copy(planner: Planner, x: Tensor, dim: int, index: Tensor, source: Tensor, out: Tensor) -> None:
    """``x`` with the slices of ``source`` along ``dim`` where the vector ``index`` says."""
    _put_along(planner, "index_copy", x, dim, index, source, Reduction(), out)


@op(
    "aten.index_add.default",
    reference=lambda x, dim, index, source, alpha: along_reference(
        x, dim, index, source, Reduction("add", alpha=alpha)
    ),
    sizes=like_first,
    rows=along_rows,
)
def index_add(
    planner: Planner, x: Tensor, dim: int, index: Tensor, source: Tensor, alpha: int | float, out: Tensor
) -> None:
    """``x`` plus ``alpha`` times the slices of ``source`` along ``dim`` where the vector ``index`` says."""
    _put_along(planner, "index_add", x, dim, index, source, Reduction("add", alpha=alpha), out)


@op(
    "aten.index_reduce.default",
    reference=lambda x, dim, index, source, reduce, include_self: along_reference(
        x, dim, index, source, Reduction(_REDUCTIONS[reduce], include_self)
    ),
    sizes=like_first,
    rows=along_rows,
)
def index_reduce(
    planner: Planner,
    x: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    include_self: bool,
    out: Tensor,
) -> None:
    """``x`` with slices of ``source`` along ``dim`` multiplied, averaged, … into where ``index`` says.

    ``reduce``: ``prod``, ``mean``, ``amax`` or ``amin``, of what is there too if ``include_self``.
    """
    planner.check(reduce in _REDUCTIONS, f"index_reduce: there is no reduction {reduce!r}")
    _put_along(planner, "index_reduce", x, dim, index, source, Reduction(_REDUCTIONS[reduce], include_self), out)


def index_fill_reference(x: np.ndarray, dim: int, index: np.ndarray, value: Any) -> np.ndarray:
    data, place = _along(x, dim, index, wraps=True)
    return reduced_at(data, place, value, Reduction()).reshape(x.shape)


def filled_rows(cut: Cut, x: Tensor, dim: int, index: Tensor, value: Any, out: Tensor) -> int | None:
    axis = cut.only(x)
    return None if axis == normalize_dim(dim, x.rank) else axis


@op("aten.index_fill.int_Scalar", reference=index_fill_reference, sizes=like_first, rows=filled_rows)
def index_fill(planner: Planner, x: Tensor, dim: int, index: Tensor, value: int | float, out: Tensor) -> None:
    """``x`` with ``value`` in the slices along ``dim`` that the vector ``index`` names; negative ones count back."""
    _put_along(planner, "index_fill", x, dim, index, value, Reduction(), out, wraps=True)


@op("aten.index_fill.int_Tensor", reference=index_fill_reference, sizes=like_first, rows=filled_rows)
def index_fill_tensor(planner: Planner, x: Tensor, dim: int, index: Tensor, value: Tensor, out: Tensor) -> None:
    """``x`` with the one element of ``value`` in the slices along ``dim`` that the vector ``index`` names."""
    planner.check(value.rank == 0, f"index_fill: {value} must have no dimensions")
    _put_along(planner, "index_fill", x, dim, index, value, Reduction(), out, wraps=True)


# -- one long row --------------------------------------------------------------------------------------------


def put_reference(x: np.ndarray, index: np.ndarray, source: np.ndarray, accumulate: bool) -> np.ndarray:
    place = in_range(index.reshape(-1), x.size, wraps=True)
    flat = reduced_at(x.reshape(-1), place, source.reshape(-1), Reduction("add" if accumulate else "set"))
    return flat.reshape(x.shape)


@op("aten.put.default", reference=put_reference, sizes=like_first)
def put_elements(planner: Planner, x: Tensor, index: Tensor, source: Tensor, accumulate: bool, out: Tensor) -> None:
    """``x``, as one long row, with the elements of ``source`` where ``index`` says, or added there."""
    check_indices(planner, "put", index, x.numel, wraps=True)
    planner.check(index.numel == source.numel, f"put: {source} must have as many elements as {index}")
    planner.resize(out)
    line = Sources(index, max(x.numel, 1), index.numel, row_major_strides(x.dims), (0,) * x.rank, source, wraps=True)
    scatter(planner, x, line, Reduction("add" if accumulate else "set"), out)
