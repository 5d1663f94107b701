"""Distances between rows: p-norms of their differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..elementwise.element import as_scalar, quiet
from ..plan import Binding, Planner
from ..registry import op
from ..reindex.strided import MAX_RANK, coalesce, innermost_first
from ..rows import Cut
from ..shapes import broadcast, broadcast_strides
from ..sizes import Found, Sizes
from ..values import INT32_MAX, Tensor

Array = np.ndarray
WORKGROUP = 64


def norm_of(difference: Array, p: float, largest: np.ufunc) -> Any:
    """The p-norm along the last dimension: for 0 the number of what is not 0, for infinity the ``largest``."""
    if p == 0:
        return np.where(np.isnan(difference), difference, difference != 0).sum(axis=-1)
    if p == math.inf:
        return largest.reduce(np.abs(difference), axis=-1, initial=0)
    return (np.abs(difference) ** p).sum(axis=-1) ** (1 / p)


def cdist_reference(a: Array, b: Array, p: float, compute_mode: int | None) -> Any:
    return norm_of(a[..., :, None, :] - b[..., None, :, :], p, np.fmax)


def pdist_reference(x: Array, p: float) -> Any:
    first, second = np.triu_indices(len(x), 1)
    return norm_of(x[first] - x[second], p, np.maximum)


def _template(p: float, pairs: str) -> dict[str, str]:
    return {"norm": {0: "0", 1: "1", 2: "2", math.inf: "inf"}.get(p, "p"), "pairs": pairs}


def cdist_sizes(s: Sizes, a: Tensor, b: Tensor, *rest: Any) -> Found | None:
    if min(a.rank, b.rank) < 2:
        return None
    return (*broadcast(s.of(a)[:-2], s.of(b)[:-2]), s.of(a)[-2], s.of(b)[-2])


def cdist_rows(cut: Cut, a: Tensor, b: Tensor, *rest: Any) -> int | None:
    """Rows of either matrix; and batches of both, or of one, where the other has none."""
    out = rest[-1]
    if cut.counts or a.id == b.id or not cut.axes:
        return None
    places = {t.id: cut.axes[t.id] - t.rank for t in (a, b) if t.id in cut.axes}
    if len(places) == 2:
        (place, other) = places.values()
        sizes = {t.max_dims[place] for t in (a, b)} if place == other and place < -2 else set()
        return out.rank + place if len(sizes) == 1 else None
    ((id, place),) = places.items()
    if place >= -2:
        return (out.rank - 2 if id == a.id else out.rank - 1) if place == -2 else None
    fixed = b if id == a.id else a
    return out.rank + place if fixed.rank < -place or fixed.max_dims[place] == 1 else None


@op("aten._cdist_forward.default", reference=quiet(cdist_reference), sizes=cdist_sizes, rows=cdist_rows)
def cdist(planner: Planner, a: Tensor, b: Tensor, p: float, compute_mode: int | None, out: Tensor) -> None:
    """``out`` [..., P, R]: distances between rows of ``a`` [..., P, M] and of ``b`` [..., R, M]; float32.

    ``p`` is 0 or more, or infinity, which passes over NaN as torch does. Batches broadcast. All modes of computation
    come to the plain formula.
    """
    _check(planner, "cdist", p, a, b, out)
    planner.check(min(a.rank, b.rank) >= 2 and a.dims[-1] == b.dims[-1], f"cdist: rows of {a} and {b} must be as long")
    planner.check(
        None not in broadcast(a.dims[:-2], b.dims[:-2]),
        f"cdist: the batches of {a} and {b} do not broadcast",
    )
    planner.resize(out)
    batch = out.dims[:-2]
    dims, strides = coalesce(batch, *(broadcast_strides(t.dims[:-2], batch) for t in (a, b)))
    planner.check(len(dims) <= MAX_RANK, f"cdist: {out} takes {len(dims)} batch dimensions; at most {MAX_RANK} work")
    _dispatch(
        planner,
        {"a": a, "out": out, "b": b},
        out,
        p,
        "all",
        {
            "width": a.dims[-1],
            "a_rows": a.dims[-2],
            "b_rows": b.dims[-2],
            "rank": len(dims),
            "dims": innermost_first(dims, 1),
            "a_strides": innermost_first(strides[0], 0),
            "b_strides": innermost_first(strides[1], 0),
        },
    )


@op("aten._pdist_forward.default", reference=quiet(pdist_reference))
def pdist(planner: Planner, x: Tensor, p: float, out: Tensor) -> None:
    """``out`` [N * (N - 1) / 2]: distances between each row of ``x`` [N, M] and those that follow it; float32.

    ``p`` is 0 or more, or infinity.
    """
    _check(planner, "pdist", p, x, out)
    planner.check(x.rank == 2 and x.dims[0] < 2**15, f"pdist: {x} must be a matrix of at most 32767 rows")
    rows, width = x.dims
    planner.resize(out, (rows * (rows - 1) // 2,))
    _dispatch(planner, {"a": x, "out": out}, out, p, "upper", {"width": width, "a_rows": rows})


def _check(planner: Planner, name: str, p: float, *tensors: Tensor) -> None:
    planner.check(all(t.dtype == "float32" for t in tensors), f"{name} takes float32 tensors, not {list(tensors)}")
    planner.check(p >= 0, f"{name}: there is no norm of order {p}")
    planner.check(max(t.numel for t in tensors) <= INT32_MAX, f"{name}: {list(tensors)} hold too many elements")


def _dispatch(
    planner: Planner, bindings: dict[str, Binding], out: Tensor, p: float, pairs: str, params: dict[str, Any]
) -> None:
    planner.dispatch(
        "distance/distance",
        planner.grid_1d(out.numel, WORKGROUP),
        bindings,
        {"n": out.numel, "p": as_scalar(p, "f32"), **params},
        overrides={"wg_size": WORKGROUP},
        template=_template(p, pairs),
    )
