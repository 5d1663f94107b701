"""Operators that write elements which indices name along one dimension, each line for itself: scatter and its kin.

An index that the program takes as an input is refused if it is out of range, before anything runs; one that is computed
on the device is clamped. Where indices name a place twice, the last value stays, or all of them count, in their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.moves import replaced
from ..reindex.strided import contiguous
from ..rows import Cut
from ..shapes import normalize_dim, row_major_strides
from ..sizes import like_first
from ..values import Scratch, Tensor
from .bounds import check_indices, in_range
from .gathering import Pick, combined
from .reference import reduced_at
from .scattering import Reduction, Sources, scatter

_TWO = {"sum": "add", "prod": "mul", "mean": "mean", "amax": "amax", "amin": "amin"}
_OLD = {"add": "add", "multiply": "mul"}


def scattered(x: np.ndarray, dim: int, index: np.ndarray, values: Any, reduction: Reduction) -> np.ndarray:
    """A copy of ``x`` with values put, added, … where ``index`` says along ``dim``."""
    data, places = (np.reshape(a, a.shape or (1,)) for a in (x, index))
    along = dim % data.ndim
    place: list[Any] = list(np.indices(places.shape, sparse=True))
    place[along] = in_range(places, data.shape[along], wraps=False)
    if isinstance(values, np.ndarray):
        values = values.reshape(values.shape or (1,))[tuple(slice(n) for n in places.shape)]
    return reduced_at(data, tuple(place), values, reduction).reshape(x.shape)


def scatter_rows(cut: Cut, x: Tensor, dim: int, index: Tensor, source: Any, *rest: Any) -> int | None:
    """All dimensions but ``dim``, of all tensors."""
    tensors = [x, index, source] if isinstance(source, Tensor) else [x, index]
    axis = cut.together(tensors)
    return None if axis == normalize_dim(dim, x.rank) else axis


def scatter_along(
    planner: Planner,
    name: str,
    x: Tensor,
    dim: int,
    index: Tensor,
    values: Tensor | int | float,
    reduction: Reduction,
    out: Tensor,
) -> None:
    """``x`` with values put, added, … where ``index`` says along ``dim``, in the line of their own place."""
    dims, places = x.dims or (1,), index.dims or (1,)
    given = (values.dims or (1,)) if isinstance(values, Tensor) else places
    axis = normalize_dim(dim, len(dims))
    planner.check(0 <= axis < len(dims), f"{name}: {x} has no dimension {dim}")
    fits = len(places) == len(given) == len(dims) and all(
        n <= given[a] and (a == axis or n <= dims[a]) for a, n in enumerate(places)
    )
    planner.check(fits or index.numel == 0, f"{name}: the indices {index} do not fit in {x} and the values {values}")
    check_indices(planner, name, index, dims[axis], wraps=False)
    planner.resize(out)
    rank, bound = x.rank, values
    if not fits:
        places = given = (0,) * len(dims)
    strides, of_index, of_values = (row_major_strides(d) for d in (dims, places, given))
    if not isinstance(values, Tensor):
        of_values = (0,) * len(dims)
    lines = Sources(
        index,
        size=max(dims[axis], 1),
        count=places[axis],
        address_strides=replaced((0,) * len(dims), axis, 1)[:rank],
        value_strides=replaced(of_values, axis, 0)[:rank],
        values=values,
        value_step=of_values[axis],
        index_strides=replaced(of_index, axis, 0)[:rank],
        step=of_index[axis],
        bounds=replaced(places, axis, dims[axis])[:rank],
    )

    def table() -> Sources:
        pick = Pick(index, of_index, dims[axis], strides[axis])
        addresses = combined(planner, places, [pick], False, replaced(strides, axis, 0))
        source: Tensor | Scratch | int | float = bound
        if isinstance(bound, Tensor) and given != places:
            source = contiguous(planner, bound, places, of_values)
        step = 1 if isinstance(bound, Tensor) else 0
        return Sources(addresses.index, max(x.numel, 1), index.numel, strides[:rank], (0,) * rank, source, step)

    scatter(planner, x, lines, reduction, out, table, index.numel)


@op(
    "aten.scatter.src",
    reference=lambda x, dim, index, source: scattered(x, dim, index, source, Reduction()),
    sizes=like_first,
    rows=scatter_rows,
)
def scatter_source(planner: Planner, x: Tensor, dim: int, index: Tensor, source: Tensor, out: Tensor) -> None:
    """``x`` with the elements of ``source`` where ``index`` says along ``dim``, and in their own place along others.

    ``index`` is no larger than ``source``, nor, along dimensions other than ``dim``, than ``x``.
    """
    scatter_along(planner, "scatter", x, dim, index, source, Reduction(), out)


@op(
    "aten.scatter.value",
    reference=lambda x, dim, index, value: scattered(x, dim, index, value, Reduction()),
    sizes=like_first,
    rows=scatter_rows,
)
def scatter_value(planner: Planner, x: Tensor, dim: int, index: Tensor, value: int | float, out: Tensor) -> None:
    """``x`` with ``value`` where ``index`` says along ``dim``, and in the indices' own place along others."""
    scatter_along(planner, "scatter", x, dim, index, value, Reduction(), out)


def scatter_reduce_reference(x: np.ndarray, dim: int, index: np.ndarray, values: Any, reduce: str) -> np.ndarray:
    return scattered(x, dim, index, values, Reduction(_OLD[reduce]))


@op("aten.scatter.reduce", reference=scatter_reduce_reference, sizes=like_first, rows=scatter_rows)
def scatter_into(
    planner: Planner, x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, out: Tensor
) -> None:
    """``scatter`` that adds to what is there, or multiplies it: ``reduce`` is ``add`` or ``multiply``."""
    planner.check(reduce in _OLD, f"scatter: there is no reduction {reduce!r}")
    scatter_along(planner, "scatter", x, dim, index, source, Reduction(_OLD[reduce]), out)


@op("aten.scatter.value_reduce", reference=scatter_reduce_reference, sizes=like_first, rows=scatter_rows)
def scatter_value_into(
    planner: Planner, x: Tensor, dim: int, index: Tensor, value: int | float, reduce: str, out: Tensor
) -> None:
    """``scatter`` of one number that is added to what is there, or multiplied with it."""
    planner.check(reduce in _OLD, f"scatter: there is no reduction {reduce!r}")
    scatter_along(planner, "scatter", x, dim, index, value, Reduction(_OLD[reduce]), out)


@op(
    "aten.scatter_add.default",
    reference=lambda x, dim, index, source: scattered(x, dim, index, source, Reduction("add")),
    sizes=like_first,
    rows=scatter_rows,
)
def scatter_add(planner: Planner, x: Tensor, dim: int, index: Tensor, source: Tensor, out: Tensor) -> None:
    """``scatter`` that adds to what is there, in the order of the indices: results repeat bit for bit."""
    scatter_along(planner, "scatter_add", x, dim, index, source, Reduction("add"), out)


@op(
    "aten.scatter_reduce.two",
    reference=lambda x, dim, index, source, reduce, include_self: scattered(
        x, dim, index, source, Reduction(_TWO[reduce], include_self)
    ),
    sizes=like_first,
    rows=scatter_rows,
)
def scatter_reduce(
    planner: Planner,
    x: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    include_self: bool,
    out: Tensor,
) -> None:
    """``scatter`` with the ``sum``, ``prod``, ``mean``, ``amax`` or ``amin`` of all values of a place.

    What is there counts, too, if ``include_self``. A place without values keeps what it has.
    """
    planner.check(reduce in _TWO, f"scatter_reduce: there is no reduction {reduce!r}")
    scatter_along(planner, "scatter_reduce", x, dim, index, source, Reduction(_TWO[reduce], include_self), out)
