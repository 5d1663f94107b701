"""Softmax and log-softmax along any dimension."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..plan import Planner
from ..reduce import passes
from ..reduce.passes import Pass, Reduction, power_of_two
from ..registry import op
from ..rows import other_dims
from ..shapes import ceil_div, normalize_dim
from ..sizes import like_first
from ..values import Tensor

Array = np.ndarray
WORKGROUP = 256
APPLY_WORKGROUP = 256  # fewer workgroups: a device begins about one a clock
# Of long rows, chunks that are reduced: more than run at once, so that the last ones are the end, which is read next.
CHUNKS = 2048
# Rows of a workgroup and units that an invocation keeps, for longer and longer rows: along the last dimension, and
# along others, where rows lie side by side, one by one or by quads. Memory is read by 32 bytes; of fewer rows,
# neighbours read the rest again.
ALONG = ((1, 4), (1, 8), (1, 16))
ACROSS = ((64, 4), (64, 16), (32, 16), (16, 16), (8, 16))
ACROSS_LONG = ((8, 32), (8, 64), (4, 64))  # where compiling that many loads takes no time
WIDE = ((16, 4), (8, 8), (8, 16), (4, 16), (2, 16))
WIDE_LONG = ((2, 32),)


def softmax_reference(x: Array, dim: int, half_to_float: Any = False) -> Array:
    """exp(x) / sum(exp(x)) along ``dim``. Where everything is -inf the result is NaN, as in torch."""
    if x.size == 0:
        return np.asarray(x, np.float64)
    wide, axis = np.asarray(x, np.float64), dim if x.ndim else None
    with np.errstate(invalid="ignore"):
        e = np.exp(wide - wide.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def safe_softmax_reference(x: Array, dim: int, dtype: Any = None) -> Array:
    """Softmax, and 0 where everything is -inf."""
    nothing = np.all(x == -np.inf, axis=dim if x.ndim else None, keepdims=True)
    return np.where(nothing, 0.0, softmax_reference(x, dim))


def log_softmax_reference(x: Array, dim: int, half_to_float: Any = False) -> Array:
    """The logarithm of softmax, exact where softmax itself would be 0."""
    if x.size == 0:
        return np.asarray(x, np.float64)
    wide, axis = np.asarray(x, np.float64), dim if x.ndim else None
    with np.errstate(invalid="ignore"):
        centered = wide - wide.max(axis=axis, keepdims=True)
    return np.asarray(centered - np.log(np.exp(centered).sum(axis=axis, keepdims=True)))


@op("aten._softmax.default", "aten.softmax.int", reference=softmax_reference, sizes=like_first, rows=other_dims)
def softmax(planner: Planner, x: Tensor, dim: int, half_to_float: Any, out: Tensor) -> None:
    """Softmax of x along ``dim``, any rank and dtype; rows of -inf alone are NaN. The output's dtype says the rest."""
    _along(planner, "softmax", x, dim, out)


@op(
    "aten._log_softmax.default",
    "aten.log_softmax.int",
    reference=log_softmax_reference,
    sizes=like_first,
    rows=other_dims,
)
def log_softmax(planner: Planner, x: Tensor, dim: int, half_to_float: Any, out: Tensor) -> None:
    """Log-softmax of x along ``dim``, any rank and dtype; rows of -inf alone are NaN."""
    _along(planner, "log", x, dim, out)


@op("aten._safe_softmax.default", reference=safe_softmax_reference, sizes=like_first, rows=other_dims)
def safe_softmax(planner: Planner, x: Tensor, dim: int, dtype: Any, out: Tensor) -> None:
    """Softmax of x along ``dim``, any rank and dtype; rows of -inf alone are 0."""
    _along(planner, "safe", x, dim, out)


@dataclass(frozen=True)
class _Kept:
    """How workgroups keep rows: ``width`` elements a unit, ``kept`` units at most in each of ``lanes`` invocations.

    ``wide``: a unit holds an element of each of four rows.
    """

    wide: bool
    width: int
    kept: int
    lanes: int


def _along(planner: Planner, result: str, x: Tensor, dim: int, out: Tensor) -> None:
    planner.check("float" in out.dtype, f"softmax gives floats, not {out}")
    axis = normalize_dim(dim, max(x.rank, 1))
    planner.check(0 <= axis < max(x.rank, 1), f"softmax: {x} has no dimension {dim}")
    planner.resize(out)
    each = passes.along(x, axis)
    each = each if each.across else replace(each, busy=CHUNKS)
    template = {"result": result, "x": x.dtype, "out": out.dtype}
    _prepare(planner, template, each, x, out)
    kept = _kept(planner, each, out)
    fused = planner.choose("softmax", {"kept": kept is not None, "two_passes": True}) == "kept"
    if x.numel == 0:
        return
    if fused:
        assert kept is not None
        along, owned = (1, kept.width) if kept.wide else (kept.width, 1)
        rows = each.rows // owned
        planner.dispatch(
            "softmax/kept",
            planner.grid_1d(ceil_div(rows * kept.lanes, WORKGROUP), 1),
            {"x": x, "out": out},
            {"rows": rows, "length": each.length // along, "inner": each.inner // owned, "lanes": kept.lanes},
            template={**template, "kept": kept.kept, "width": kept.width, "across": each.across},
            overrides={"wg_size": WORKGROUP},
        )
        return
    planner.dispatch(
        "softmax/apply",
        planner.grid_1d(ceil_div(x.numel, 4), APPLY_WORKGROUP),
        {"x": x, "partials": passes.partials(planner, Reduction("lse"), x, each), "out": out},
        {"n": x.numel, "length": each.length, "inner": each.inner},
        template=template,
        overrides={"wg_size": APPLY_WORKGROUP},
    )


def _prepare(planner: Planner, template: dict[str, Any], each: Pass, x: Tensor, out: Tensor) -> None:
    """Have the kernels made that live sizes may need."""
    words = out.element.itemsize == 4
    longest = []
    for width in (4, 1) if not each.across or each.most_inner >= 4 else (1,):
        ways = _ways(planner, each, width)
        length = each.most_length // (1 if each.across else width)
        covered = 0  # by the ways before
        for rows, kept in ways if width == 4 or words else ():
            if length > covered:
                how = {**template, "kept": kept, "width": width, "across": each.across}
                planner.prepare("softmax/kept", template=how, overrides={"wg_size": WORKGROUP})
            covered = WORKGROUP // rows * kept
        longest.append(covered)
    if not words or each.most_length > min(longest):
        planner.prepare("softmax/apply", template=template, overrides={"wg_size": APPLY_WORKGROUP})
        passes.prepare(planner, Reduction("lse"), x, each, None)


def _ways(planner: Planner, each: Pass, width: int) -> tuple[tuple[int, int], ...]:
    """(rows, or quads of them, of a workgroup, units that an invocation keeps), for longer and longer rows."""
    if not each.across:
        return ALONG
    ways, more = (WIDE, WIDE_LONG) if width == 4 else (ACROSS, ACROSS_LONG)
    return ways if planner.features.cpu else (*ways, *more)


def _kept(planner: Planner, each: Pass, out: Tensor) -> _Kept | None:
    """How rows can be kept; None where they are too long, or do not consist of whole words of ``out``."""
    width = 4 if (each.inner if each.across else each.length) % 4 == 0 else 1
    if width == 1 and out.element.itemsize != 4:
        return None
    units, side_by_side = (each.length, each.inner // width) if each.across else (each.length // width, 1)
    for rows, kept in _ways(planner, each, width):
        most = WORKGROUP // min(rows, power_of_two(side_by_side))
        if units <= most * kept:
            lanes = min(most, power_of_two(ceil_div(units, kept)))
            return _Kept(each.across and width == 4, width, kept, lanes)
    return None
