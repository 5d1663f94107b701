"""Scans along a dimension: cumulative sums, products, extremes and log-sum-exp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..reduce import passes
from ..reduce.passes import BUSY, WORDS, Outs, Pass, Reduction, power_of_two
from ..reduce.reference import cast
from ..registry import op
from ..rows import other_dims
from ..shapes import ceil_div, normalize_dim
from ..sizes import Shape, Sizes, like_first
from ..values import Scratch, Tensor

Array = np.ndarray
WORKGROUP = 128  # along rows: more of them on a multiprocessor, so that one loads while others wait at barriers
KERNEL = "scan/scan"
OWNED = 16  # elements of a short row, for an invocation
LEAST_ROWS = 8  # of a workgroup, side by side: 32 bytes, as memory is read
ENOUGH = 256  # workgroups that need no chunks
CHUNKS = 2048  # along: more than run at once, so that the last ones are the end of a row, which is read next


# -- references -------------------------------------------------------------------------------------------------------


def _cumulative(compute: Callable[..., Any]) -> Callable[..., Any]:
    def reference(x: Array, dim: int, dtype: Any = None) -> Array:
        given = cast(x, dtype)
        given = given if given.dtype.kind in "fc" else given.astype(np.int64)
        with np.errstate(all="ignore"):
            return np.asarray(compute(given, axis=dim) if x.ndim else given)

    return reference


def _extremes(better: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Values so far and where the last of equals is; NaN stays, and the last NaN is where."""

    def reference(x: Array, dim: int) -> tuple[Array, Array]:
        if x.size == 0 or x.ndim == 0:
            return np.array(x), np.zeros(x.shape, np.int64)
        rows = np.moveaxis(x, dim, 0)
        values, places = np.array(rows), np.zeros(rows.shape, np.int64)
        for i in range(1, len(rows)):
            nan = rows[i] != rows[i]
            takes = nan | ((values[i - 1] == values[i - 1]) & better(rows[i], values[i - 1]))
            values[i] = np.where(takes, rows[i], values[i - 1])
            places[i] = np.where(takes, i, places[i - 1])
        return np.moveaxis(values, 0, dim), np.moveaxis(places, 0, dim)

    return reference


def logcumsumexp_reference(x: Array, dim: int) -> Array:
    """log(cumsum(exp(x))), without overflow."""
    wide = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(np.logaddexp.accumulate(wide, axis=dim) if x.ndim else wide)


# -- operators --------------------------------------------------------------------------------------------------------


@op("aten.cumsum.default", reference=_cumulative(np.cumsum), sizes=like_first, rows=other_dims)
def cumsum(planner: Planner, x: Tensor, dim: int, dtype: Any, out: Tensor) -> None:
    """Sums of x, of any dtype, along ``dim`` up to each element, in the dtype of ``out``; int32 wraps."""
    planner.check(out.dtype != "bool", f"cumsum gives numbers, not {out}")
    _scan(planner, "cumsum", Reduction("sum", "f32" if "float" in out.dtype else "i32"), x, dim, Outs(out))


@op("aten.cumprod.default", reference=_cumulative(np.cumprod), sizes=like_first, rows=other_dims)
def cumprod(planner: Planner, x: Tensor, dim: int, dtype: Any, out: Tensor) -> None:
    """Products of x, of any dtype, along ``dim`` up to each element, in the dtype of ``out``; int32 wraps."""
    planner.check(out.dtype != "bool", f"cumprod gives numbers, not {out}")
    _scan(planner, "cumprod", Reduction("product", "f32" if "float" in out.dtype else "i32"), x, dim, Outs(out))


@op("aten.logcumsumexp.default", reference=logcumsumexp_reference, sizes=like_first, rows=other_dims)
def logcumsumexp(planner: Planner, x: Tensor, dim: int, out: Tensor) -> None:
    """log(sum(exp(x))) along ``dim`` up to each element, without overflow; floats."""
    planner.check("float" in x.dtype and "float" in out.dtype, f"logcumsumexp takes and gives floats, not {[x, out]}")
    _scan(planner, "logcumsumexp", Reduction("lse"), x, dim, Outs(out))


def _two_like_first(s: Sizes, x: Tensor, *rest: Any) -> list[Shape]:
    return [s.of(x)] * 2


@op("aten.cummax.default", reference=_extremes(np.greater_equal), sizes=_two_like_first, rows=other_dims)
def cummax(planner: Planner, x: Tensor, dim: int, outs: list[Tensor]) -> None:
    """Largest element along ``dim`` up to each one, and its index, int32: of equals, and of NaN, the last one."""
    _extreme(planner, "cummax", "last_largest", x, dim, outs)


@op("aten.cummin.default", reference=_extremes(np.less_equal), sizes=_two_like_first, rows=other_dims)
def cummin(planner: Planner, x: Tensor, dim: int, outs: list[Tensor]) -> None:
    """Smallest element along ``dim`` up to each one, and its index, int32: of equals, and of NaN, the last one."""
    _extreme(planner, "cummin", "last_smallest", x, dim, outs)


def _extreme(planner: Planner, name: str, kind: str, x: Tensor, dim: int, outs: list[Tensor]) -> None:
    planner.check(
        len(outs) == 2 and outs[0].dtype == x.dtype and outs[1].dtype == "int32",
        f"{name} gives values of the dtype of {x} and int32 indices, not {outs}",
    )
    _scan(planner, name, Reduction(kind, "f32" if "float" in x.dtype else "i32"), x, dim, Outs(*outs))


# -- dispatches -------------------------------------------------------------------------------------------------------


def _scan(planner: Planner, name: str, reduction: Reduction, x: Tensor, dim: int, outs: Outs) -> None:
    axis = normalize_dim(dim, max(x.rank, 1))
    planner.check(0 <= axis < max(x.rank, 1), f"{name}: {x} has no dimension {dim}")
    assert outs.first is not None
    out = outs.first
    for result in outs.tensors:
        planner.resize(result)
    each = _wide(passes.along(x, axis))
    direct = out.dtype in WORDS or (not each.across and each.length % 4 == 0)
    _prepare(planner, reduction, x, each, outs)
    if x.numel == 0:
        return
    if direct:
        _dispatch(planner, reduction, x, each, out, out.dtype, outs.second)
        return
    words = planner.scratch(4 * x.numel)
    _dispatch(planner, reduction, x, each, words, _word(reduction), outs.second)
    passes.finish(planner, Reduction("sum", reduction.compute), words, x.numel, Outs(out))


def _wide(each: Pass) -> Pass:
    """A pass that prefers more workgroups with fewer rows to chunks, since these are read twice."""
    found = replace(each, enough=ENOUGH, busy=each.busy if each.across else CHUNKS)
    while found.across and found.blocks < BUSY and found.side_by_side > LEAST_ROWS:
        found = replace(found, side_by_side=found.side_by_side // 2)
    return found


def _word(reduction: Reduction) -> str:
    """The dtype of results that are to be narrowed."""
    return "float32" if reduction.compute == "f32" else "int32"


def _workgroup(each: Pass) -> int:
    return passes.WORKGROUP if each.across else WORKGROUP


def _lanes(each: Pass) -> int:
    if each.across:
        return each.lanes
    return min(WORKGROUP, power_of_two(ceil_div(each.length, OWNED)))


def _dispatch(
    planner: Planner,
    reduction: Reduction,
    x: Tensor,
    each: Pass,
    to: Tensor | Scratch,
    out_dtype: str,
    places: Tensor | None,
) -> None:
    chunk = each.chunk
    chunks = each.chunks
    bindings: dict[str, Binding] = {"x": x, "out": to}
    if places is not None:
        bindings["places"] = places
    if chunks > 1:
        bindings["carries"] = passes.chunk_partials(planner, reduction, x, each, chunk)
    lanes = _lanes(each)
    blocks = ceil_div(each.rows * lanes, _workgroup(each)) * chunks
    planner.dispatch(
        KERNEL,
        planner.grid_1d(blocks, 1),
        bindings,
        {
            "rows": each.rows,
            "length": each.length,
            "inner": each.inner,
            "chunk": chunk,
            "chunks": chunks,
            "lanes": lanes,
            "blocks": blocks,
        },
        template=_template(
            reduction,
            x,
            each,
            out_dtype,
            places is not None,
            chunked=chunks > 1,
            whole=each.across or each.length % 4 == 0,
        ),
        overrides={"wg_size": _workgroup(each)},
    )


def _template(
    reduction: Reduction, x: Tensor, each: Pass, out_dtype: str, places: bool, *, chunked: bool, whole: bool
) -> dict[str, Any]:
    return {
        "kind": reduction.kind,
        "compute": reduction.compute,
        "across": each.across,
        "whole": whole,
        "chunked": chunked,
        "x": x.dtype,
        "out": out_dtype,
        "places": places,
    }


def _prepare(planner: Planner, reduction: Reduction, x: Tensor, each: Pass, outs: Outs) -> None:
    """Have the kernels made that live sizes may need."""
    assert outs.first is not None
    dtype = outs.first.dtype
    narrow = dtype not in WORDS
    kinds = ([dtype] if not narrow or not each.across else []) + ([_word(reduction)] if narrow else [])
    for out_dtype in kinds:
        wholes = (True,) if each.across or out_dtype not in WORDS else (True, False)
        for chunked, whole in product((False, True) if each.may_have_chunks else (False,), wholes):
            template = _template(reduction, x, each, out_dtype, outs.second is not None, chunked=chunked, whole=whole)
            planner.prepare(KERNEL, template=template, overrides={"wg_size": _workgroup(each)})
    if each.may_have_chunks:
        passes.prepare(planner, reduction, x, each, None)
    if narrow:
        passes.prepare_finish(planner, Reduction("sum", reduction.compute), Outs(outs.first))
