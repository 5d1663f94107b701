"""Sorting, the first of the sorted, and medians along any dimension; of any dtype. NaN is above all numbers."""

from __future__ import annotations

import math
from typing import Any

from ..plan import Binding, Planner
from ..reduce import passes
from ..reduce.axes import all_sizes, reduced_rows, reduced_sizes
from ..reduce.passes import Pass
from ..registry import op
from ..rows import Cut, other_dims
from ..shapes import ceil_div, normalize_dim
from ..sizes import Shape, Sizes, like_first
from ..values import IntLike, Tensor
from . import reference
from .network import PAIR_BYTES, WORKGROUP, Sorted, sorted_pairs

RESULTS_WORKGROUP = 64


# -- sort -------------------------------------------------------------------------------------------------------------


def _two_like_first(s: Sizes, x: Tensor, *rest: Any) -> list[Shape]:
    return [s.of(x)] * 2


def _stable_rows(cut: Cut, x: Tensor, stable: Any, dim: int, *rest: Any) -> int | None:
    return other_dims(cut, x, dim)


@op("aten.sort.default", reference=reference.sort_reference, sizes=_two_like_first, rows=other_dims)
def sort(planner: Planner, x: Tensor, dim: int, descending: bool, outs: list[Tensor]) -> None:
    """x sorted along ``dim``, and indices, int32; equals keep their order."""
    _sort(planner, "sort", x, dim, descending, outs)


@op(
    "aten.sort.stable",
    reference=lambda x, stable, dim, descending: reference.sort_reference(x, dim, descending),
    sizes=_two_like_first,
    rows=_stable_rows,
)
def sort_stable(
    planner: Planner, x: Tensor, stable: bool | None, dim: int, descending: bool, outs: list[Tensor]
) -> None:
    """x sorted along ``dim``, and indices, int32; equals keep their order, whatever ``stable`` says."""
    _sort(planner, "sort", x, dim, descending, outs)


@op("aten.argsort.default", reference=reference.order_of, sizes=like_first, rows=other_dims)
def argsort(planner: Planner, x: Tensor, dim: int, descending: bool, out: Tensor) -> None:
    """The indices, int32, that sort x along ``dim``; equals keep their order."""
    _sort(planner, "argsort", x, dim, descending, [None, out])


@op(
    "aten.argsort.stable",
    reference=lambda x, stable, dim, descending: reference.order_of(x, dim, descending),
    sizes=like_first,
    rows=_stable_rows,
)
def argsort_stable(planner: Planner, x: Tensor, stable: bool, dim: int, descending: bool, out: Tensor) -> None:
    """The indices, int32, that sort x along ``dim``; equals keep their order."""
    _sort(planner, "argsort", x, dim, descending, [None, out])


def _first_stays(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    return other_dims(cut, x, 0)


@op("aten.msort.default", reference=lambda x: reference.sort_reference(x, 0)[0], sizes=like_first, rows=_first_stays)
def msort(planner: Planner, x: Tensor, out: Tensor) -> None:
    """x sorted along its first dimension."""
    _sort(planner, "msort", x, 0, False, [out, None])


def _sort(planner: Planner, name: str, x: Tensor, dim: int, descending: bool, outs: Any) -> None:
    each = _along(planner, name, x, dim, outs)
    for out in outs:
        if out is not None:
            planner.resize(out)
    _results(planner, x, each, sorted_pairs(planner, x, each, bool(descending), each.length), 0, each.length, outs)


# -- the first of the sorted ------------------------------------------------------------------------------------------


def _topk_sizes(s: Sizes, x: Tensor, k: IntLike, dim: int, *rest: Any) -> list[Shape]:
    axis = normalize_dim(dim, x.rank)
    return [tuple(s.value(k) if a == axis else n for a, n in enumerate(s.of(x)))] * 2


def _topk_rows(cut: Cut, x: Tensor, k: IntLike, dim: int, *rest: Any) -> int | None:
    return other_dims(cut, x, dim)


@op("aten.topk.default", reference=reference.topk_reference, sizes=_topk_sizes, rows=_topk_rows)
def topk(planner: Planner, x: Tensor, k: IntLike, dim: int, largest: bool, sort: bool, outs: list[Tensor]) -> None:
    """The ``k`` largest or smallest elements of x along ``dim``, and indices, int32.

    They are sorted whatever ``sort`` says, and of equals the first ones are taken, which torch leaves open.
    """
    each = _along(planner, "topk", x, dim, outs)
    count = planner.value(k)
    planner.check(0 <= count <= each.length, f"topk: {count} of the {each.length} elements of {x} are asked for")
    for out in outs:
        planner.resize(out)
    count = count if x.rank else 1
    _results(planner, x, each, sorted_pairs(planner, x, each, bool(largest), count), 0, count, outs)


def _kth_sizes(s: Sizes, x: Tensor, k: IntLike, dim: int, keepdim: bool, *rest: Any) -> list[Shape]:
    return [reduced_sizes(s, x, dim, keepdim)] * 2


def _kth_rows(cut: Cut, x: Tensor, k: IntLike, dim: int, keepdim: bool, *rest: Any) -> int | None:
    return reduced_rows(cut, x, dim, keepdim)


@op("aten.kthvalue.default", reference=reference.kthvalue_reference, sizes=_kth_sizes, rows=_kth_rows)
def kthvalue(planner: Planner, x: Tensor, k: IntLike, dim: int, keepdim: bool, outs: list[Tensor]) -> None:
    """The ``k``-th smallest element of x along ``dim``, counted from 1, and its index, int32; equals in their order."""
    each = _along(planner, "kthvalue", x, dim, outs)
    place = planner.value(k)
    planner.check(1 <= place <= each.length, f"kthvalue: element {place} of the {each.length} of {x} is asked for")
    for out in outs:
        planner.resize(out)
    _results(planner, x, each, sorted_pairs(planner, x, each, False, place), place - 1, 1, outs)


# -- medians ----------------------------------------------------------------------------------------------------------


def _median_sizes(s: Sizes, x: Tensor, dim: int, keepdim: bool, *rest: Any) -> list[Shape]:
    return [reduced_sizes(s, x, dim, keepdim)] * 2


def _register_median(name: str, ignore_nan: bool) -> None:
    @op(
        f"aten.{name}.dim",
        reference=lambda x, dim, keepdim: reference.median_reference(x, dim, keepdim, ignore_nan),
        sizes=_median_sizes,
        rows=reduced_rows,
    )
    def along(planner: Planner, x: Tensor, dim: int, keepdim: bool, outs: list[Tensor]) -> None:
        """The lower one of the elements in the middle along ``dim``, and its index, int32: of equals, in their order.

        The median of anything and NaN is the first NaN; nanmedian leaves NaN out, as long as there is something else.
        """
        each = _along(planner, name, x, dim, outs)
        for out in outs:
            planner.resize(out)
        planner.check(each.length > 0 or outs[0].numel == 0, f"{name}: {x} has no elements to choose from")
        _results(planner, x, each, sorted_pairs(planner, x, each, False, each.length), 0, 1, outs, name)

    @op(
        f"aten.{name}.default",
        reference=lambda x: reference.median_of_all_reference(x, ignore_nan),
        sizes=all_sizes,
    )
    def over_all(planner: Planner, x: Tensor, out: Tensor) -> None:
        """The lower one of all elements in the middle; see ``dim``."""
        planner.check(x.dtype == out.dtype, f"{name} gives the dtype of {x}, not {out}")
        planner.check(x.numel > 0, f"{name}: {x} has no elements to choose from")
        planner.resize(out)
        each = Pass(1, x.numel, 1, math.prod(x.max_dims), 1)
        _results(planner, x, each, sorted_pairs(planner, x, each, False, x.numel), 0, 1, [out, None], name)


_register_median("median", ignore_nan=False)
_register_median("nanmedian", ignore_nan=True)


@op("aten.mode.default", reference=reference.mode_reference, sizes=_median_sizes, rows=reduced_rows)
def mode(planner: Planner, x: Tensor, dim: int, keepdim: bool, outs: list[Tensor]) -> None:
    """The most frequent element along ``dim``, or the smallest of these, and the index, int32, of the last of it.

    Torch leaves open which of equals its index is of. No NaN equals another.
    """
    each = _along(planner, "mode", x, dim, outs)
    for out in outs:
        planner.resize(out)
    planner.check(each.length > 0 or outs[0].numel == 0, f"mode: {x} has no elements to choose from")
    found = sorted_pairs(planner, x, each, False, each.length)
    chosen = planner.scratch(PAIR_BYTES * each.rows)
    planner.dispatch(
        "sort/mode",
        planner.grid_1d(each.rows if each.length else 0, 1),
        {"pairs": found.pairs, "out": chosen},
        {"rows": each.rows, "length": each.length, "sorted": found.length},
        template={"nan": "float" in x.dtype},
        overrides={"wg_size": WORKGROUP},
    )
    _results(planner, x, each, Sorted(chosen, 1), 0, 1, outs)


# -- what they share --------------------------------------------------------------------------------------------------


def _along(planner: Planner, name: str, x: Tensor, dim: int, outs: Any) -> Pass:
    """The pass along ``dim``, checked with the dtypes of values and indices."""
    planner.check(len(outs) == 2, f"{name} has two results, not {len(outs)}")
    values, indices = outs
    planner.check(values is None or values.dtype == x.dtype, f"{name} gives values of the dtype of {x}, not {values}")
    planner.check(indices is None or indices.dtype == "int32", f"{name} gives indices in int32, not {indices}")
    axis = normalize_dim(dim, max(x.rank, 1))
    planner.check(0 <= axis < max(x.rank, 1), f"{name}: {x} has no dimension {dim}")
    return passes.along(x, axis)


def _results(
    planner: Planner, x: Tensor, each: Pass, found: Sorted, first: int, count: int, outs: Any, choice: str = "first"
) -> None:
    """Values and indices of ``count`` pairs of each row, from the one at ``first`` on."""
    values, indices = outs
    bindings: dict[str, Binding] = {"pairs": found.pairs}
    if values is not None:
        bindings |= {"x": x, "values": values}
    if indices is not None:
        bindings["indices"] = indices
    n = each.rows * count if each.length else 0
    planner.dispatch(
        "sort/results",
        planner.grid_1d(ceil_div(n, 4), RESULTS_WORKGROUP),
        bindings,
        {
            "n": n,
            "length": each.length,
            "inner": each.inner,
            "sorted": found.length,
            "first": first,
            "count": count,
        },
        template={
            "x": x.dtype,
            "choice": choice,
            "results": "both" if values and indices else "values" if values else "indices",
        },
        overrides={"wg_size": RESULTS_WORKGROUP},
    )
