"""Live integers: sizes and elements of inputs as SymInts, and arithmetic on them. All of it runs on the host.

``add`` and its like are what Python's operators are called in a program; each operand is an int or a SymInt.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial

import numpy as np

from ...errors import InvalidInputError
from ..plan import Planner
from ..registry import op
from ..rows import Cut, RowAxes
from ..shapes import normalize_dim, row_major_strides
from ..sizes import Size, Sizes
from ..values import IntLike, SymInt, Tensor


def sym_size_value(s: Sizes, x: Tensor, dim: int, out: SymInt) -> Size | None:
    axis = normalize_dim(dim, x.rank)
    return s.of(x)[axis] if 0 <= axis < x.rank else None


def sym_size_rows(cut: Cut, x: Tensor, dim: int, out: SymInt) -> RowAxes | None:
    """Other sizes than the number of rows stay as they are."""
    return (None,) if cut.only(x) not in (None, normalize_dim(dim, x.rank)) else None


@op(
    "sym_size.int",
    "aten.sym_size.int",
    reference=lambda x, dim: x.shape[dim],
    sizes=sym_size_value,
    rows=sym_size_rows,
)
def sym_size(planner: Planner, x: Tensor, dim: int, out: SymInt) -> None:
    """``out`` = the live size of ``x`` along ``dim``."""
    axis = normalize_dim(dim, x.rank)
    planner.check(0 <= axis < x.rank, f"sym_size: {x} has no dimension {dim}")
    planner.set(out, x.dims[axis])


def select_as_symint_reference(x: np.ndarray, dim: int, index: int) -> int:
    return int(np.take(x, index, axis=dim).flat[0])


def select_as_symint_value(s: Sizes, x: Tensor, dim: int, index: int, out: SymInt) -> Size | None:
    return (x.id, 0, 0) if x.max_dims == (1,) else None


@op("et_vk.select_as_symint.default", reference=select_as_symint_reference, sizes=select_as_symint_value)
def select_as_symint(planner: Planner, x: Tensor, dim: int, index: int, out: SymInt) -> None:
    """``out`` = element ``index`` along ``dim``, the first along the others, of an integer graph input."""
    planner.check(x.dtype not in ("float32", "float16"), f"select_as_symint: {x} does not hold integers")
    axis = normalize_dim(dim, x.rank)
    planner.check(0 <= axis < x.rank, f"select_as_symint: {x} has no dimension {dim}")
    position = normalize_dim(index, x.dims[axis])
    planner.check(0 <= position < x.dims[axis], f"select_as_symint: {x} has no element {index} along dimension {dim}")
    planner.check(math.prod(x.dims) > 0, f"select_as_symint: {x} is empty")
    planner.follow(out, x, position * row_major_strides(x.dims)[axis])


def _nonzero_divisor(fn: Callable[[int, int], int], a: int, b: int) -> int:
    if b == 0:
        raise InvalidInputError(
            f"the program divides {a} by a live integer that is 0 for these inputs; change the inputs"
        )
    return fn(a, b)


BINARY: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": partial(_nonzero_divisor, operator.floordiv),
    "mod": partial(_nonzero_divisor, operator.mod),
    "sym_max": max,
    "sym_min": min,
}


def _register_binary(name: str, fn: Callable[[int, int], int]) -> None:
    @op(name, reference=fn)
    def plan(planner: Planner, a: IntLike, b: IntLike, out: SymInt) -> None:
        if planner.building and isinstance(fn, partial) and isinstance(b, SymInt) and b.value == 0:
            # At load no input has been seen, and this divisor means nothing; the first step computes.
            planner.defer(fn, a, b)
            return
        planner.set(out, planner.derive(fn, a, b))


for _name, _fn in BINARY.items():
    _register_binary(_name, _fn)


@op("neg", reference=operator.neg)
def neg(planner: Planner, a: IntLike, out: SymInt) -> None:
    """``out`` = -``a``."""
    planner.set(out, planner.derive(operator.neg, a))
