"""A result that holds elements of one tensor along strides: what operators that pick or reorder elements share."""

from __future__ import annotations

from typing import Any, TypeVar

from ..plan import Planner
from ..shapes import normalize_dim, row_major_strides
from ..values import Dims, Tensor
from .strided import Copy, dispatch_copy

N = TypeVar("N")


def axis_of(planner: Planner, name: str, x: Tensor, dim: int) -> int:
    """The dimension ``dim`` of ``x``, counted from the front. A tensor without dimensions has none."""
    axis = normalize_dim(dim, x.rank)
    planner.check(0 <= axis < x.rank, f"{name}: {x} has no dimension {dim}")
    return axis


def replaced(numbers: tuple[N, ...], axis: int, *values: N) -> tuple[N, ...]:
    """``numbers`` with ``values`` in place of one of them."""
    return (*numbers[:axis], *values, *numbers[axis + 1 :])


def move(
    planner: Planner, x: Tensor, strides: Dims, out: Tensor, base: int = 0, dims: Dims | None = None, **live: Any
) -> None:
    """``out`` holds elements of ``x``: at ``base`` and along ``strides``, from a ``live`` start on (see ``Copy``)."""
    planner.resize(out, dims)
    dispatch_copy(planner, x, out, Copy(out.dims, strides, row_major_strides(out.dims), x_base=base, **live))
