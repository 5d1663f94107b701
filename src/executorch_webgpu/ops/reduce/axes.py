"""Which dimensions a reduction goes over, and what follows for sizes and rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..plan import Planner
from ..rows import Cut
from ..shapes import normalize_dim
from ..sizes import Shape, Sizes
from ..values import Tensor

Axes = int | Sequence[int] | None


def kept(x: Tensor, dims: Axes) -> list[int]:
    """The dimensions that are not reduced; none given are all that are."""
    given = [dims] if isinstance(dims, int) else dims or range(x.rank)
    return [a for a in range(x.rank) if a not in {normalize_dim(d, x.rank) for d in given}]


def reduced_sizes(s: Sizes, x: Tensor, dims: Axes, keepdim: bool, *rest: Any) -> Shape:
    left = kept(x, dims)
    return tuple(n if a in left else 1 for a, n in enumerate(s.of(x)) if keepdim or a in left)


def reduced_rows(cut: Cut, x: Tensor, dims: Axes, keepdim: bool, *rest: Any) -> int | None:
    axis, left = cut.only(x), kept(x, dims)
    return None if axis not in left else axis if keepdim else left.index(axis)


def two_sizes(s: Sizes, x: Tensor, dims: Axes, keepdim: bool, *rest: Any) -> list[Shape]:
    return [reduced_sizes(s, x, dims, keepdim)] * 2


def all_sizes(s: Sizes, x: Tensor, *rest: Any) -> Shape:
    """Of one number."""
    return ()


def checked_axes(planner: Planner, name: str, x: Tensor, dims: Axes) -> list[int]:
    """The dimensions that are reduced, each once."""
    listed = [dims] if isinstance(dims, int) else list(dims or ())
    given = [normalize_dim(d, max(x.rank, 1)) for d in listed]
    planner.check(all(0 <= a < max(x.rank, 1) for a in given), f"{name}: {x} has no dimension among {listed}")
    planner.check(len(set(given)) == len(given), f"{name}: a dimension appears twice in {listed}")
    left = kept(x, dims)
    return [a for a in range(x.rank) if a not in left]
