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
from ..sizes import Found, Shape, Sizes, quotient
from ..values import Dims, IntLike, SymInt, Tensor
from .strided import dispatch_whole_copy


def pass_through(planner: Planner, x: Tensor, out: Tensor, dims: Dims | None = None) -> None:
    """``out`` holds the elements of ``x``, in their order, under ``dims``: by default those of the rule of sizes."""
    dims = planner.dims_of(out) if dims is None else dims
    planner.check(x.dtype == out.dtype, f"{x} and {out} must have the same dtype")
    planner.check(math.prod(dims) == x.numel, f"{x} cannot be seen as dims {list(dims)}: it has {x.numel} elements")
    planner.resize(out, dims)
    if not planner.alias(out, x):
        dispatch_whole_copy(planner, x, out)


def view_sizes(s: Sizes, x: Tensor, size: Sequence[IntLike], out: Tensor) -> Found:
    """Those that are listed; a -1 is what is left of the elements of ``x``."""
    given = [s.value(n) for n in size]
    if -1 not in given:
        s.equate(s.of(x), given)
        return tuple(given)
    rest = quotient(s.of(x), [n for n in given if n != -1])
    return tuple(rest if n == -1 else n for n in given)


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
def view_copy(planner: Planner, x: Tensor, size: Sequence[IntLike], out: Tensor) -> None:
    """``x`` under the dims ``size``, one of which may be -1."""
    sizes = planner.values(size)
    # At load, a size that an input holds is not known yet, and everything has its maximum dims.
    if planner.building and any(isinstance(s, SymInt) and s.value == 0 for s in size):
        return pass_through(planner, x, out, out.max_dims)
    known = math.prod(s for s in sizes if s != -1)
    planner.check(sizes.count(-1) <= 1, f"view_copy: dims {list(sizes)} leave more than one size open")
    planner.check(all(s >= -1 for s in sizes), f"view_copy: dims {list(sizes)} have a negative size")
    fits = -1 not in sizes or (known > 0 and x.numel % known == 0)
    planner.check(fits, f"view_copy: {x} cannot be seen as dims {list(sizes)}")
    return pass_through(planner, x, out)


@op("aten.clone.default", reference=lambda x, memory_format: x, elementwise=True, view=True)
def clone(planner: Planner, x: Tensor, memory_format: Any, out: Tensor) -> None:
    """``x`` itself; memory formats are the exporter's business, tensors are row-major here."""
    pass_through(planner, x, out)


@op(
    "dim_order_ops._clone_dim_order.default",
    reference=lambda x, non_blocking, dim_order: x,
    elementwise=True,
    view=True,
)
def clone_dim_order(planner: Planner, x: Tensor, non_blocking: bool, dim_order: Any, out: Tensor) -> None:
    """``x`` itself."""
    pass_through(planner, x, out)


@op("aten.alias_copy.default", reference=lambda x: x, elementwise=True, view=True)
def alias_copy(planner: Planner, x: Tensor, out: Tensor) -> None:
    """``x`` itself."""
    pass_through(planner, x, out)


@op("et_vk.prepack.default", reference=lambda x: x, elementwise=True)
def prepack(planner: Planner, x: Tensor, out: Tensor) -> None:
    """The constant ``x`` where kernels can read it, which is where it is already."""
    planner.check(x.dtype == out.dtype, f"prepack: {x} and {out} must have the same dtype")
    planner.resize(out)
    planner.adopt(out, x)


def _squeeze(planner: Planner, x: Tensor, dims: Sequence[int], out: Tensor) -> None:
    axes = {normalize_dim(d, x.rank) for d in dims}
    planner.check(all(0 <= a < max(x.rank, 1) for a in axes), f"squeeze_copy: {x} has no dimension among {list(dims)}")
    pass_through(planner, x, out)


def _gone(x: Tensor, *rest: Any) -> list[int]:
    """The dimensions that squeeze takes away: all, one or some, if their size is always 1."""
    *dims, _ = rest
    given = range(x.rank) if not dims else dims if isinstance(dims[0], int) else dims[0]
    return [a for a in (normalize_dim(d, x.rank) for d in given) if x.max_dims[a : a + 1] == (1,)]


def squeezed_sizes(s: Sizes, x: Tensor, *rest: Any) -> Shape:
    gone = _gone(x, *rest)
    return tuple(size for axis, size in enumerate(s.of(x)) if axis not in gone)


def squeezed_rows(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    return without(cut.only(x), _gone(x, *rest))


def squeeze_reference(x: np.ndarray, dims: int | Sequence[int]) -> np.ndarray:
    axes = [dims] if isinstance(dims, int) else dims
    return np.squeeze(x, tuple(a for a in axes if x.shape[a] == 1))


@op("aten.squeeze_copy.dims", reference=squeeze_reference, sizes=squeezed_sizes, rows=squeezed_rows, view=True)
def squeeze_dims(planner: Planner, x: Tensor, dims: Sequence[int], out: Tensor) -> None:
    """``x`` without those of ``dims`` that have size 1."""
    _squeeze(planner, x, dims, out)


@op("aten.squeeze_copy.dim", reference=squeeze_reference, sizes=squeezed_sizes, rows=squeezed_rows, view=True)
def squeeze_dim(planner: Planner, x: Tensor, dim: int, out: Tensor) -> None:
    """``x`` without ``dim``, if that has size 1."""
    _squeeze(planner, x, [dim], out)


@op("aten.squeeze_copy.default", reference=np.squeeze, sizes=squeezed_sizes, rows=squeezed_rows, view=True)
def squeeze_all(planner: Planner, x: Tensor, out: Tensor) -> None:
    """``x`` without its dimensions of size 1."""
    _squeeze(planner, x, range(x.rank), out)


def unsqueezed_sizes(s: Sizes, x: Tensor, dim: int, out: Tensor) -> Shape:
    axis = normalize_dim(dim, x.rank + 1)
    return (*s.of(x)[:axis], 1, *s.of(x)[axis:])


def unsqueezed_rows(cut: Cut, x: Tensor, dim: int, out: Tensor) -> int | None:
    axis = cut.only(x)
    return axis if axis is None or axis < normalize_dim(dim, x.rank + 1) else axis + 1


@op("aten.unsqueeze_copy.default", reference=np.expand_dims, sizes=unsqueezed_sizes, rows=unsqueezed_rows, view=True)
def unsqueeze(planner: Planner, x: Tensor, dim: int, out: Tensor) -> None:
    """``x`` with a new dimension of size 1 at ``dim``."""
    axis = normalize_dim(dim, x.rank + 1)
    planner.check(0 <= axis <= x.rank, f"unsqueeze_copy: {x} cannot get a dimension {dim}")
    pass_through(planner, x, out)
