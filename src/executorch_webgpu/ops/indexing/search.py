"""Binary search among sorted boundaries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..registry import op
from ..rows import Cut
from ..sizes import like_first
from ..values import INT32_MAX, INT32_MIN, Tensor
from .gathering import OVERRIDES, WORKGROUP


def _search(
    planner: Planner,
    name: str,
    boundaries: Tensor,
    values: Tensor | int | float,
    right: bool,
    sorter: Tensor | None,
    out: Tensor,
) -> None:
    planner.check(boundaries.rank > 0 and boundaries.dtype != "bool", f"{name}: {boundaries} must be rows of numbers")
    planner.check(out.dtype == "int32", f"{name}: {out} must hold integers")
    rows = boundaries.dims[:-1]
    dims = values.dims if isinstance(values, Tensor) else ()
    fits = not rows or (len(dims) == len(rows) + 1 and dims[:-1] == rows)
    planner.check(fits, f"{name}: {values} must have as many rows as {boundaries}")
    kinds = [boundaries.dtype, *([values.dtype] if isinstance(values, Tensor) else [])]
    planner.check("bool" not in kinds, f"{name}: bools are not searched")
    compute = "f32" if any("float" in k for k in kinds) or isinstance(values, float) else "i32"
    bindings: dict[str, Binding] = {"boundaries": boundaries, "out": out}
    number: int | float = 0
    if isinstance(values, Tensor):
        bindings["values"] = values
    else:
        number = float(values) if compute == "f32" else min(max(int(values), INT32_MIN), INT32_MAX)
    if sorter is not None:
        fits = sorter.dtype == "int32" and sorter.dims == boundaries.dims
        planner.check(fits, f"{name}: the order {sorter} must be integers of the dims of {boundaries}")
        bindings["sorter"] = sorter
    planner.resize(out)
    size = boundaries.dims[-1]
    n = math.prod(dims)
    planner.dispatch(
        "indexing/searchsorted",
        planner.grid_1d(n, WORKGROUP),
        bindings,
        {
            "n": n,
            "columns": dims[-1] if rows else max(n, 1),
            "size": size,
            "row_step": size if rows else 0,
            "right": int(right),
            "number": number,
        },
        overrides=OVERRIDES,
        template={
            "boundaries": boundaries.dtype,
            "values": values.dtype if isinstance(values, Tensor) else "number",
            "compute": compute,
            "sorter": sorter is not None,
        },
    )


def searchsorted_reference(
    boundaries: np.ndarray,
    values: Any,
    out_int32: bool,
    right: bool,
    side: str | None = None,
    sorter: np.ndarray | None = None,
) -> np.ndarray:
    if sorter is not None:
        boundaries = np.take_along_axis(boundaries, sorter, axis=-1)
    values = np.asarray(values)
    where: Any = side or ("right" if right else "left")
    if boundaries.ndim == 1:
        found = np.searchsorted(boundaries, values, where)
    else:
        rows = zip(boundaries.reshape(-1, boundaries.shape[-1]), values.reshape(-1, values.shape[-1]), strict=True)
        found = np.reshape([np.searchsorted(b, v, where) for b, v in rows], values.shape)
    return np.where(values != values, boundaries.shape[-1], found)  # NaN is after all


def searched_rows(cut: Cut, boundaries: Tensor, values: Any, *rest: Any) -> int | None:
    if not isinstance(values, Tensor):
        return None
    axis = cut.only(values)
    if axis is not None:
        return axis if boundaries.rank == 1 or axis == values.rank - 1 else None
    *_, sorter, _ = (None, *rest) if len(rest) > 3 else (None, None)
    axis = cut.together([t for t in (boundaries, values, sorter) if isinstance(t, Tensor)])
    return None if axis == values.rank - 1 else axis


@op(
    "aten.searchsorted.Tensor",
    reference=searchsorted_reference,
    promoted=("boundaries", "values"),
    discontinuous=True,
    sizes=lambda s, boundaries, values, *rest: s.of(values),
    rows=searched_rows,
)
def searchsorted(
    planner: Planner,
    boundaries: Tensor,
    values: Tensor,
    out_int32: bool,
    right: bool,
    side: str | None,
    sorter: Tensor | None,
    out: Tensor,
) -> None:
    """How many of the sorted ``boundaries`` [..., N] are below each of ``values``; with ``right``, or as large.

    ``boundaries`` are one row for all values, or have a row for each row of them; ``side`` says ``left`` or ``right``
    in words. ``sorter`` brings boundaries into order. NaN is after all boundaries.
    """
    planner.check(side in (None, "left", "right"), f"searchsorted: there is no side {side!r}")
    _search(planner, "searchsorted", boundaries, values, right or side == "right", sorter, out)


@op(
    "aten.searchsorted.Scalar",
    reference=searchsorted_reference,
    sizes=lambda s, boundaries, value, *rest: (),
)
def searchsorted_scalar(
    planner: Planner,
    boundaries: Tensor,
    value: int | float,
    out_int32: bool,
    right: bool,
    side: str | None,
    sorter: Tensor | None,
    out: Tensor,
) -> None:
    """``searchsorted`` of one number."""
    planner.check(side in (None, "left", "right"), f"searchsorted: there is no side {side!r}")
    _search(planner, "searchsorted", boundaries, value, right or side == "right", sorter, out)


@op(
    "aten.bucketize.Tensor",
    reference=lambda values, boundaries, out_int32, right: searchsorted_reference(boundaries, values, out_int32, right),
    promoted=("values", "boundaries"),
    discontinuous=True,
    sizes=like_first,
    rows=lambda cut, values, *rest: cut.only(values),
)
def bucketize(planner: Planner, values: Tensor, boundaries: Tensor, out_int32: bool, right: bool, out: Tensor) -> None:
    """``searchsorted`` of ``values`` in the one row ``boundaries``."""
    planner.check(boundaries.rank == 1, f"bucketize: {boundaries} must be one row")
    _search(planner, "bucketize", boundaries, values, right, None, out)


@op(
    "aten.bucketize.Scalar",
    reference=lambda value, boundaries, out_int32, right: searchsorted_reference(boundaries, value, out_int32, right),
    sizes=lambda s, *rest: (),
)
def bucketize_scalar(
    planner: Planner, value: int | float, boundaries: Tensor, out_int32: bool, right: bool, out: Tensor
) -> None:
    """``searchsorted`` of one number in the one row ``boundaries``."""
    planner.check(boundaries.rank == 1, f"bucketize: {boundaries} must be one row")
    _search(planner, "bucketize", boundaries, value, right, None, out)
