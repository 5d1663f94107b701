"""Operators that read elements which indices name.

An index that the program takes as an input is refused if it is out of range, before anything runs; one that is computed
on the device is clamped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.moves import axis_of, move, replaced
from ..rows import Cut
from ..rows import broadcast as broadcast_rows
from ..shapes import broadcast, broadcast_strides, normalize_dim, row_major_strides
from ..sizes import Found, Sizes
from ..values import Tensor
from .bounds import check_indices, in_range
from .gathering import Pick, gather
from .places import Places, index_reference, place_rows, places_of


def _as_vector(x: np.ndarray) -> np.ndarray:
    return x.reshape(1) if x.ndim == 0 else x


def gather_reference(x: np.ndarray, dim: int, index: np.ndarray, sparse_grad: bool = False) -> np.ndarray:
    data, places = _as_vector(x), _as_vector(index)
    along = dim % data.ndim
    front = data[tuple(slice(None) if a == along else slice(n) for a, n in enumerate(places.shape))]
    return np.take_along_axis(front, in_range(places, data.shape[along], wraps=False), axis=along).reshape(index.shape)


def gather_rows(cut: Cut, x: Tensor, dim: int, index: Tensor, sparse_grad: bool, out: Tensor) -> int | None:
    """Indices along ``dim``; along other dimensions with what they are indices into."""
    along = normalize_dim(dim, index.rank)
    if (alone := cut.only(index)) is not None:
        return alone if alone == along else None
    together = cut.together([x, index])
    return None if together == along else together


@op(
    "aten.gather.default",
    reference=gather_reference,
    sizes=lambda s, x, dim, index, *rest: s.of(index),
    rows=gather_rows,
)
def gather_along(planner: Planner, x: Tensor, dim: int, index: Tensor, sparse_grad: bool, out: Tensor) -> None:
    """``x`` where ``index`` says along ``dim``, and at the place in the result along others.

    ``index``, of the rank of ``x``, is no larger than it along dimensions other than ``dim``.
    """
    dims = x.dims or (1,)
    axis = normalize_dim(dim, len(dims))
    planner.check(0 <= axis < len(dims), f"gather: {x} has no dimension {dim}")
    shape = index.dims or (1,)
    fits = len(shape) == len(dims) and all(a == axis or n <= dims[a] for a, n in enumerate(shape))
    planner.check(fits or index.numel == 0, f"gather: the indices {index} do not fit in {x}")
    check_indices(planner, "gather", index, dims[axis], wraps=False)
    planner.resize(out)
    strides = row_major_strides(dims)
    if not index.dims:
        gather(planner, x, (), [Pick(index, (), dims[axis], strides[axis])], False, out)
    elif fits:
        pick = Pick(index, row_major_strides(shape), dims[axis], strides[axis])
        gather(planner, x, replaced(strides, axis, 0), [pick], False, out)


def index_select_reference(x: np.ndarray, dim: int, index: np.ndarray) -> np.ndarray:
    data, places = _as_vector(x), _as_vector(index)
    taken = np.take(data, in_range(places, data.shape[dim], wraps=False), axis=dim)
    return taken.reshape(()) if x.ndim == 0 else taken


def selected_sizes(s: Sizes, x: Tensor, dim: int, index: Tensor, out: Tensor) -> Found | None:
    axis = normalize_dim(dim, x.rank)
    if x.rank == 0:
        return ()
    return replaced(s.of(x), axis, *(s.of(index) or (1,))) if 0 <= axis < x.rank and index.rank <= 1 else None


def selected_rows(cut: Cut, x: Tensor, dim: int, index: Tensor, out: Tensor) -> int | None:
    axis = normalize_dim(dim, x.rank)
    if cut.only(index) is not None:
        return axis
    alone = cut.only(x)
    return None if alone == axis else alone


@op(
    "aten.index_select.default",
    reference=index_select_reference,
    sizes=selected_sizes,
    rows=selected_rows,
    selects="dim",
    reads_rows_of=("x",),
)
def index_select(planner: Planner, x: Tensor, dim: int, index: Tensor, out: Tensor) -> None:
    """``x`` at every index of the vector ``index`` along ``dim``."""
    planner.check(index.rank <= 1, f"index_select: the indices {index} must be a vector")
    planner.check(x.rank > 0 or dim in (0, -1), f"index_select: {x} has no dimension {dim}")
    axis = axis_of(planner, "index_select", x, dim) if x.rank else 0
    size = x.dims[axis] if x.rank else 1
    check_indices(planner, "index_select", index, size, wraps=False)
    planner.resize(out)
    strides = row_major_strides(x.dims)
    along = replaced((0,) * x.rank, axis, 1) if x.rank else ()
    step = strides[axis] if x.rank else 1
    gather(planner, x, replaced(strides, axis, 0) if x.rank else (), [Pick(index, along, size, step)], False, out)


def index_sizes(s: Sizes, x: Tensor, indices: Sequence[Tensor | None], out: Tensor) -> Found | None:
    given = [i for i in indices if i is not None]
    if any(i.dtype != "int32" for i in given) or len(indices) > x.rank:
        return None
    found = places_of(s.of(x), [None if i is None else s.of(i) for i in indices])
    return (*found.before, *found.joint, *found.after)


@op(
    "aten.index.Tensor",
    "aten._unsafe_index.Tensor",
    reference=index_reference,
    sizes=index_sizes,
    rows=place_rows,
)
def index(planner: Planner, x: Tensor, indices: Sequence[Tensor | None], out: Tensor) -> None:
    """``x[indices]``: index tensors, which broadcast together, one for each dimension, and None for all of one.

    Where no None stands between them, the dimensions of the index tensors take the place of those that they index;
    otherwise they come first. Negative indices count from the end. A mask of bools has a result whose size only its
    elements tell, so it is for the host.
    """
    found = checked_places(planner, "index", x, indices)
    planner.resize(out)
    if found.indexed:
        gather(planner, x, found.outer_strides, picks_of(found, indices), True, out)
    else:
        move(planner, x, found.outer_strides, out)


def checked_places(
    planner: Planner, name: str, x: Tensor, indices: Sequence[Tensor | None], wraps: bool = True
) -> Places:
    """Where index tensors lead in ``x``, if they are integers that fit it."""
    given = [i for i in indices if i is not None]
    masks = [i for i in given if i.dtype in ("bool", "uint8")]
    planner.check(not masks, f"{name}: the mask {masks[:1]} selects a number of elements that only the host can know")
    planner.check(len(indices) <= x.rank, f"{name}: {x} has fewer than {len(indices)} dimensions")
    fits = None not in broadcast(*(i.dims for i in given))
    planner.check(fits, f"{name}: the indices {given} do not broadcast to a common shape")
    for i, size in zip(indices, x.dims, strict=False):
        if i is not None:
            check_indices(planner, name, i, size, wraps)
    return places_of(x.dims, [None if i is None else i.dims for i in indices])


def picks_of(found: Places, indices: Sequence[Tensor | None]) -> list[Pick]:
    """What each index tensor says for every element of ``x[indices]``."""
    before, after = (0,) * len(found.before), (0,) * len(found.after)
    return [
        Pick(
            index,
            (*before, *broadcast_strides(index.dims, found.joint), *after),
            found.dims[axis],
            found.strides[axis],
        )
        for axis, index in enumerate(indices)
        if index is not None
    ]


@op(
    "aten.take.default",
    reference=lambda x, index: np.reshape(x, -1)[in_range(index, x.size, wraps=True)],
    sizes=lambda s, x, index, out: s.of(index),
    rows=lambda cut, x, index, out: cut.only(index),
)
def take(planner: Planner, x: Tensor, index: Tensor, out: Tensor) -> None:
    """The elements of ``x``, as one long row, at every index; negative ones count from the end."""
    check_indices(planner, "take", index, x.numel, wraps=True)
    planner.resize(out)
    pick = Pick(index, row_major_strides(index.dims), x.numel, 1)
    gather(planner, x, (0,) * index.rank, [pick], True, out)


def take_along_reference(x: np.ndarray, index: np.ndarray, dim: int | None) -> np.ndarray:
    if dim is None:
        return x.reshape(-1)[in_range(index.reshape(-1), x.size, wraps=True)]
    along = dim % x.ndim
    return np.take_along_axis(x, in_range(index, x.shape[along], wraps=True), axis=along)


def taken_sizes(s: Sizes, x: Tensor, index: Tensor, dim: int | None, out: Tensor) -> Found | None:
    if dim is None:
        return (s.of(index)[0],) if index.rank == 1 else None
    axis = normalize_dim(dim, x.rank)
    if x.rank != index.rank or not 0 <= axis < x.rank:
        return None
    joint = broadcast(replaced(s.of(x), axis, 1), replaced(s.of(index), axis, 1))
    return replaced(joint, axis, s.of(index)[axis])


def taken_rows(cut: Cut, x: Tensor, index: Tensor, dim: int | None, out: Tensor) -> int | None:
    alone = cut.only(index)
    if dim is None:
        return alone if index.rank == 1 else None
    axis = normalize_dim(dim, x.rank)
    if alone == axis or axis in cut.axes.values():
        return alone if alone == axis else None
    return broadcast_rows(cut, x, index, out)


@op("aten.take_along_dim.default", reference=take_along_reference, sizes=taken_sizes, rows=taken_rows)
def take_along_dim(planner: Planner, x: Tensor, index: Tensor, dim: int | None, out: Tensor) -> None:
    """Like ``gather``, but both tensors broadcast along other dimensions; without ``dim``, both as one long row."""
    if dim is None:
        check_indices(planner, "take_along_dim", index, x.numel, wraps=True)
        planner.resize(out, (index.numel,))
        gather(planner, x, (0,), [Pick(index, (1,), x.numel, 1)], True, out)
        return
    planner.check(x.rank == index.rank, f"take_along_dim: {x} and {index} must have as many dimensions")
    axis = axis_of(planner, "take_along_dim", x, dim)
    joint = broadcast(replaced(x.dims, axis, 1), replaced(index.dims, axis, 1))
    planner.check(None not in joint, f"take_along_dim: {x} and {index} do not broadcast beside dimension {dim}")
    check_indices(planner, "take_along_dim", index, x.dims[axis], wraps=True)
    planner.resize(out)
    dims, size = out.dims, x.dims[axis]
    x_strides = broadcast_strides(x.dims, replaced(dims, axis, size))
    step = row_major_strides(x.dims)[axis]
    pick = Pick(index, broadcast_strides(index.dims, dims), size, step)
    gather(planner, x, replaced(x_strides, axis, 0), [pick], True, out)
