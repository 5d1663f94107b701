"""Operators that keep the order of elements: views, clones, squeezes. They share memory if they may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..shapes import normalize_dim
from ..values import Dims, IntLike, SymInt, Tensor
from .strided import dispatch_whole_copy


def pass_through(g: Planner, x: Tensor, dims: Sequence[int], out: Tensor) -> None:
    """``out`` holds the elements of ``x``, in their order, under ``dims``."""
    g.check(x.dtype == out.dtype, f"{x} and {out} must have the same dtype")
    g.check(math.prod(dims) == x.numel, f"{x} cannot be seen as dims {list(dims)}: it has {x.numel} elements")
    g.resize(out, dims)
    if not g.alias(out, x):
        dispatch_whole_copy(g, x, out)


def _view_dims(g: Planner, x: Tensor, size: Sequence[int]) -> Dims:
    """``size`` with its -1, if any, replaced by what is left of the elements of ``x``."""
    known = math.prod(s for s in size if s != -1)
    g.check(size.count(-1) <= 1, f"view_copy: dims {list(size)} leave more than one size open")
    g.check(all(s >= -1 for s in size), f"view_copy: dims {list(size)} have a negative size")
    if -1 not in size:
        return tuple(size)
    g.check(known > 0 and x.numel % known == 0, f"view_copy: {x} cannot be seen as dims {list(size)}")
    return tuple(x.numel // known if s == -1 else s for s in size)


@op("aten.view_copy.default", reference=lambda x, size: np.reshape(x, size))
def view_copy(g: Planner, x: Tensor, size: Sequence[IntLike], out: Tensor) -> None:
    """``x`` under the dims ``size``, one of which may be -1."""
    sizes = g.values(size)
    # At load, a size that an input holds is not known yet, and everything has its maximum dims.
    unknown = g.building and any(isinstance(s, SymInt) and s.value == 0 for s in size)
    pass_through(g, x, out.max_dims if unknown else _view_dims(g, x, sizes), out)


@op("aten.clone.default", reference=lambda x, memory_format: x)
def clone(g: Planner, x: Tensor, memory_format: Any, out: Tensor) -> None:
    """``x`` itself; memory formats are the exporter's business, tensors are row-major here."""
    pass_through(g, x, x.dims, out)


@op("dim_order_ops._clone_dim_order.default", reference=lambda x, non_blocking, dim_order: x)
def clone_dim_order(g: Planner, x: Tensor, non_blocking: bool, dim_order: Any, out: Tensor) -> None:
    """``x`` itself."""
    pass_through(g, x, x.dims, out)


@op("aten.alias_copy.default", reference=lambda x: x)
def alias_copy(g: Planner, x: Tensor, out: Tensor) -> None:
    """``x`` itself."""
    pass_through(g, x, x.dims, out)


@op("et_vk.prepack.default", reference=lambda x: x)
def prepack(g: Planner, x: Tensor, out: Tensor) -> None:
    """The constant ``x`` where kernels can read it, which is where it is already."""
    g.check(x.dtype == out.dtype, f"prepack: {x} and {out} must have the same dtype")
    g.resize(out, x.dims)
    g.adopt(out, x)


def _squeezed(dims: Dims, axes: set[int]) -> Dims:
    return tuple(d for axis, d in enumerate(dims) if axis not in axes)


def _squeeze(g: Planner, x: Tensor, dims: Sequence[int], out: Tensor) -> None:
    axes = {normalize_dim(d, x.rank) for d in dims}
    g.check(all(0 <= a < max(x.rank, 1) for a in axes), f"squeeze_copy: {x} has no dimension among {list(dims)}")
    pass_through(g, x, _squeezed(x.dims, {a for a in axes if a < x.rank and x.max_dims[a] == 1}), out)


def squeeze_reference(x: np.ndarray, dims: int | Sequence[int]) -> np.ndarray:
    axes = [dims] if isinstance(dims, int) else dims
    return np.squeeze(x, tuple(a for a in axes if x.shape[a] == 1))


@op("aten.squeeze_copy.dims", reference=squeeze_reference)
def squeeze_dims(g: Planner, x: Tensor, dims: Sequence[int], out: Tensor) -> None:
    """``x`` without those of ``dims`` that have size 1."""
    _squeeze(g, x, dims, out)


@op("aten.squeeze_copy.dim", reference=squeeze_reference)
def squeeze_dim(g: Planner, x: Tensor, dim: int, out: Tensor) -> None:
    """``x`` without ``dim``, if that has size 1."""
    _squeeze(g, x, [dim], out)


@op("aten.squeeze_copy.default", reference=np.squeeze)
def squeeze_all(g: Planner, x: Tensor, out: Tensor) -> None:
    """``x`` without its dimensions of size 1."""
    _squeeze(g, x, range(x.rank), out)


@op("aten.unsqueeze_copy.default", reference=np.expand_dims)
def unsqueeze(g: Planner, x: Tensor, dim: int, out: Tensor) -> None:
    """``x`` with a new dimension of size 1 at ``dim``."""
    axis = normalize_dim(dim, x.rank + 1)
    g.check(0 <= axis <= x.rank, f"unsqueeze_copy: {x} cannot get a dimension {dim}")
    pass_through(g, x, (*x.dims[:axis], 1, *x.dims[axis:]), out)
