"""The largest and the smallest elements, and where they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..values import Tensor
from . import reference
from .axes import Axes, all_sizes, checked_axes, reduced_rows, reduced_sizes, two_sizes
from .passes import Outs, Reduction, dispatch
from .sums import is_float


def _extreme(planner: Planner, name: str, kind: str, x: Tensor, dims: Axes, outs: Outs) -> None:
    """``kind`` of ``x`` over ``dims``: values in the dtype of x, places in int32."""
    if outs.first is not None:
        planner.check(outs.first.dtype == x.dtype, f"{name} gives the dtype of {x}, not {outs.first}")
    if outs.second is not None:
        planner.check(outs.second.dtype == "int32", f"{name} gives places in int32, not {outs.second}")
    axes = checked_axes(planner, name, x, dims)
    for out in outs.tensors:
        planner.resize(out)
    length = math.prod(x.dims[a] for a in axes)
    empty = all(out.numel == 0 for out in outs.tensors)
    planner.check(length > 0 or empty, f"{name}: {x} has no elements to choose from")
    dispatch(planner, Reduction(kind, "f32" if is_float(x) else "i32"), x, axes, outs)


def _register(most: str, kind: str, places: str, values: Callable[..., Any], place: Callable[..., Any]) -> None:
    """The operators of one extreme, "max" or "min"."""

    @op(f"aten.a{most}.default", reference=values, sizes=reduced_sizes, rows=reduced_rows)
    def over_several(planner: Planner, x: Tensor, dims: list[int], keepdim: bool, out: Tensor) -> None:
        """Largest or smallest element of x, of any dtype, over ``dims``; NaN if there is one."""
        _extreme(planner, f"a{most}", kind, x, dims, Outs(out))

    @op(f"aten.{most}.default", reference=values, sizes=all_sizes)
    def over_all(planner: Planner, x: Tensor, out: Tensor) -> None:
        """Largest or smallest of all elements of x, of any dtype; NaN if there is one."""
        _extreme(planner, most, kind, x, None, Outs(out))

    def both(x: reference.Array, dim: int, keepdim: bool) -> tuple[Any, Any]:
        return values(x, dim, keepdim), place(x, dim, keepdim)

    @op(f"aten.{most}.dim", reference=both, sizes=two_sizes, rows=reduced_rows)
    def with_places(planner: Planner, x: Tensor, dim: int, keepdim: bool, outs: list[Tensor]) -> None:
        """Largest or smallest element of x along ``dim``, and its index, int32: of the first NaN, or of equals."""
        planner.check(len(outs) == 2, f"{most} along a dimension has two results, not {len(outs)}")
        _extreme(planner, most, places, x, dim, Outs(*outs))

    @op(f"aten.arg{most}.default", reference=place, sizes=reduced_sizes, rows=reduced_rows)
    def where(planner: Planner, x: Tensor, dim: int | None, keepdim: bool, out: Tensor) -> None:
        """Index, int32, of the first NaN or else extreme of x along ``dim``, or in all of x."""
        _extreme(planner, f"arg{most}", places, x, dim, Outs(second=out))


_register("max", "max", "largest", reference.amax_reference, reference.place_reference(np.argmax))
_register("min", "min", "smallest", reference.amin_reference, reference.place_reference(np.argmin))


def _aminmax_reference(x: reference.Array, dim: int | None, keepdim: bool) -> tuple[Any, Any]:
    return reference.amin_reference(x, dim, keepdim), reference.amax_reference(x, dim, keepdim)


@op("aten.aminmax.default", reference=_aminmax_reference, sizes=two_sizes, rows=reduced_rows)
def aminmax(planner: Planner, x: Tensor, dim: int | None, keepdim: bool, outs: list[Tensor]) -> None:
    """Smallest and largest element of x, of any dtype, along ``dim`` or in all of it; NaN if there is one."""
    planner.check(len(outs) == 2, f"aminmax has two results, not {len(outs)}")
    for kind, out in zip(("min", "max"), outs, strict=True):
        _extreme(planner, "aminmax", kind, x, dim, Outs(out))
