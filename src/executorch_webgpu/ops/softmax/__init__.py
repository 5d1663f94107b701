"""Softmax and log-softmax along any dimension."""

from __future__ import annotations

import math

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import other_dims
from ..shapes import normalize_dim
from ..sizes import like_first
from ..values import Tensor

Array = np.ndarray


def softmax_reference(x: Array, dim: int, half_to_float: bool = False) -> Array:
    """exp(x) / sum(exp(x)) along ``dim``. Where everything is -inf the result is NaN, as in torch."""
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def log_softmax_reference(x: Array, dim: int, half_to_float: bool = False) -> Array:
    """The logarithm of softmax, exact where softmax itself would be 0."""
    with np.errstate(invalid="ignore"):
        centered = x - x.max(axis=dim, keepdims=True)
    return centered - np.log(np.exp(centered).sum(axis=dim, keepdims=True))


@op("aten._softmax.default", "aten.softmax.int", reference=softmax_reference, sizes=like_first, rows=other_dims)
def softmax(planner: Planner, x: Tensor, dim: int, half_to_float: bool | None, out: Tensor) -> None:
    """Softmax of x along ``dim``, any rank. float32 only, so ``half_to_float`` and a dtype change nothing."""
    _along(planner, "softmax", x, dim, out)


@op("aten._log_softmax.default", reference=log_softmax_reference, sizes=like_first, rows=other_dims)
def log_softmax(planner: Planner, x: Tensor, dim: int, half_to_float: bool | None, out: Tensor) -> None:
    """Log-softmax of x along ``dim``, any rank; float32."""
    _along(planner, "log_softmax", x, dim, out)


def _along(planner: Planner, name: str, x: Tensor, dim: int, out: Tensor) -> None:
    planner.check(x.dtype == out.dtype == "float32", f"{name} takes float32, not {x} into {out}")
    axis = normalize_dim(dim, x.rank)
    planner.check(0 <= axis < max(x.rank, 1), f"{name}: {x} has no dimension {dim}")
    planner.resize(out)
    length = x.dims[axis] if x.rank else 1
    inner = math.prod(x.dims[axis + 1 :])
    if x.numel == 0:
        return
    rows = x.numel // length
    template = {"log": name == "log_softmax"}
    # Along the last dimension a workgroup reads a row together; else neighbours own neighbouring columns.
    for kernel in ("softmax/workgroup_row", "softmax/invocation_row"):
        planner.prepare(kernel, template=template)
    route = planner.choose("softmax", {"workgroup_row": inner == 1, "invocation_row": True})
    if route == "workgroup_row":
        params = {"rows": rows, "length": length}
        planner.dispatch(
            "softmax/workgroup_row", planner.grid_1d(rows, 1), {"x": x, "out": out}, params, template=template
        )
    else:
        params = {"rows": rows, "length": length, "inner": inner}
        planner.dispatch(
            "softmax/invocation_row", planner.grid_1d(rows, 64), {"x": x, "out": out}, params, template=template
        )
