"""Operators that keep the order of elements: views, clones, squeezes. They share memory if they may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut, without
from ..shapes import normalize_dim
from ..sizes import Shape, Sizes, quotient, unknown
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


def view_sizes(s: Sizes, x: Tensor, size: Sequence[IntLike], out: Tensor) -> Shape | None:
    given = [s.value(n) for n in size]
    if len(given) != out.rank or given.count(-1) > 1:
        return None
    if -1 not in given:
        s.equate(s.of(x), given)
        return tuple(given)
    rest = quotient(s.of(x), [n for n in given if n != -1])
    return tuple((u if rest is None else rest) if n == -1 else n for n, u in zip(given, unknown(out), strict=True))


def view_rows(cut: Cut, x: Tensor, size: Sequence[IntLike], out: Tensor) -> int | None:
    """Rows stay rows where as many elements stand before and after them; their number must not be fixed."""
    axis = cut.axes.get(x.id)
    if axis is None or len(size) != out.rank:
        return None
    counts = [place for place, n in enumerate(size) if isinstance(n, SymInt) and n.id in cut.counts]
    (place, *others) = counts or [size.index(-1) if -1 in size else -1]
    before, after = (x.max_dims[:axis], out.max_dims[:place]), (x.max_dims[axis + 1 :], out.max_dims[place + 1 :])
    stays = all(math.prod(a) == math.prod(b) for a, b in (before, after))
    return place if stays and place >= 0 and not others else None


@op(
    "aten.view_copy.default",
    reference=lambda x, size: np.reshape(x, size),
    sizes=view_sizes,
    rows=view_rows,
    view=True,
)
def view_copy(g: Planner, x: Tensor, size: Sequence[IntLike], out: Tensor) -> None:
    """``x`` under the dims ``size``, one of which may be -1."""
    sizes = g.values(size)
    # At load, a size that an input holds is not known yet, and everything has its maximum dims.
    unknown = g.building and any(isinstance(s, SymInt) and s.value == 0 for s in size)
    pass_through(g, x, out.max_dims if unknown else _view_dims(g, x, sizes), out)


@op("aten.clone.default", reference=lambda x, memory_format: x, elementwise=True, view=True)
def clone(g: Planner, x: Tensor, memory_format: Any, out: Tensor) -> None:
    """``x`` itself; memory formats are the exporter's business, tensors are row-major here."""
    pass_through(g, x, x.dims, out)


@op(
    "dim_order_ops._clone_dim_order.default",
    reference=lambda x, non_blocking, dim_order: x,
    elementwise=True,
    view=True,
)
def clone_dim_order(g: Planner, x: Tensor, non_blocking: bool, dim_order: Any, out: Tensor) -> None:
    """``x`` itself."""
    pass_through(g, x, x.dims, out)


@op("aten.alias_copy.default", reference=lambda x: x, elementwise=True, view=True)
def alias_copy(g: Planner, x: Tensor, out: Tensor) -> None:
    """``x`` itself."""
    pass_through(g, x, x.dims, out)


@op("et_vk.prepack.default", reference=lambda x: x, elementwise=True)
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


def squeezed_sizes(s: Sizes, x: Tensor, *rest: Any) -> Shape | None:
    """Of squeeze and unsqueeze: only sizes of 1 come and go."""
    out: Tensor = rest[-1]
    kept = [size for size, most in zip(s.of(x), x.max_dims, strict=True) if most != 1]
    if len(kept) != sum(n != 1 for n in out.max_dims):
        return None
    return tuple(1 if n == 1 else kept.pop(0) for n in out.max_dims)


def squeezed_rows(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    *dims, _ = rest
    gone = range(x.rank) if not dims else dims if isinstance(dims[0], int) else dims[0]
    return without(cut.only(x), [a for a in (normalize_dim(d, x.rank) for d in gone) if x.max_dims[a : a + 1] == (1,)])


def squeeze_reference(x: np.ndarray, dims: int | Sequence[int]) -> np.ndarray:
    axes = [dims] if isinstance(dims, int) else dims
    return np.squeeze(x, tuple(a for a in axes if x.shape[a] == 1))


@op("aten.squeeze_copy.dims", reference=squeeze_reference, sizes=squeezed_sizes, rows=squeezed_rows, view=True)
def squeeze_dims(g: Planner, x: Tensor, dims: Sequence[int], out: Tensor) -> None:
    """``x`` without those of ``dims`` that have size 1."""
    _squeeze(g, x, dims, out)


@op("aten.squeeze_copy.dim", reference=squeeze_reference, sizes=squeezed_sizes, rows=squeezed_rows, view=True)
def squeeze_dim(g: Planner, x: Tensor, dim: int, out: Tensor) -> None:
    """``x`` without ``dim``, if that has size 1."""
    _squeeze(g, x, [dim], out)


@op("aten.squeeze_copy.default", reference=np.squeeze, sizes=squeezed_sizes, rows=squeezed_rows, view=True)
def squeeze_all(g: Planner, x: Tensor, out: Tensor) -> None:
    """``x`` without its dimensions of size 1."""
    _squeeze(g, x, range(x.rank), out)


def unsqueezed_rows(cut: Cut, x: Tensor, dim: int, out: Tensor) -> int | None:
    axis = cut.only(x)
    return axis if axis is None or axis < normalize_dim(dim, x.rank + 1) else axis + 1


@op("aten.unsqueeze_copy.default", reference=np.expand_dims, sizes=squeezed_sizes, rows=unsqueezed_rows, view=True)
def unsqueeze(g: Planner, x: Tensor, dim: int, out: Tensor) -> None:
    """``x`` with a new dimension of size 1 at ``dim``."""
    axis = normalize_dim(dim, x.rank + 1)
    g.check(0 <= axis <= x.rank, f"unsqueeze_copy: {x} cannot get a dimension {dim}")
    pass_through(g, x, (*x.dims[:axis], 1, *x.dims[axis:]), out)
