"""Host kernels of operators that have none on the device, or take other arguments there.

They take a program's arguments as arrays, numbers and lists, and return a result or a tuple of them, which the
caller casts to the dtypes of the outputs. Where torch refuses a value, they raise IndexError, ValueError or
ArithmeticError.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .dtypes import is_float
from .selections import SELECTIONS

Array = np.ndarray
Simple = Callable[..., Any]

# Arithmetic of live sizes and loop counters, which the exporter emits as instructions of their own.
SCALAR_OPERATORS: dict[str, Simple] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "neg": operator.neg,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "sym_max": max,
    "sym_min": min,
}


def _axes(x: Array, dims: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """Axes for NumPy; none are all, and a tensor without dimensions has none to name."""
    given = (dims,) if isinstance(dims, int) else tuple(dims or ())
    return given if given and x.ndim else None


def _extreme(values: Simple, position: Simple) -> Simple:
    """The largest or smallest elements along a dimension, and where the first of them lie."""

    def run(x: Array, dim: int, keepdim: bool) -> tuple[Any, Any]:
        if not x.ndim:
            return x, np.zeros((), np.int64)
        wide = x.astype(np.float64) if is_float(x.dtype) else x
        return values(wide, axis=dim, keepdims=keepdim), position(wide, axis=dim, keepdims=keepdim)

    return run


def _variance(x: Array, dims: Sequence[int] | None, correction: float | None, keepdim: bool) -> Any:
    axes = _axes(x, dims)
    wide = x.astype(np.float64)
    squares = np.square(wide - wide.mean(axis=axes, keepdims=True)).sum(axis=axes, keepdims=keepdim)
    count = x.size if axes is None else math.prod(x.shape[a] for a in axes)
    with np.errstate(all="ignore"):
        return squares / np.float64(max(count - (1 if correction is None else correction), 0))


def _cumsum(x: Array, dim: int, dtype: Any) -> Any:
    wide = x.astype(np.float64) if is_float(x.dtype) else x.astype(np.int64)
    return np.cumsum(wide, axis=dim) if x.ndim else wide


def _copy_index(target: Array, source: Array, index: int) -> Any:
    """``target`` with ``source`` as its row ``index``, which is the last one: how loops collect their results."""
    return np.concatenate([target[:index], source[None]])


def _full_like(x: Array, value: Any, *_: Any) -> Any:
    return np.full(x.shape, value)


# What remains, by name and overload.
OTHERS: dict[tuple[str, str], Simple] = {
    ("aten::sym_size", "int"): lambda x, dim: int(x.shape[dim]),
    ("aten::copy_", ""): lambda x, source, *_: np.broadcast_to(source, x.shape),
    ("executorch_prim::et_view", "default"): lambda x, dims: x.reshape(dims),
    ("executorch_prim::et_copy_index", "tensor"): _copy_index,
    ("dim_order_ops::_to_dim_order_copy", "out"): lambda x, *_: x,
    ("dim_order_ops::_clone_dim_order", "out"): lambda x, *_: x,
    ("aten::_to_copy", "out"): lambda x, *_: x,
    ("aten::scalar_tensor", "out"): lambda value, *_: np.asarray(value),
    ("aten::full", "out"): lambda dims, value, *_: np.full(dims, value),
    ("aten::full_like", "out"): _full_like,
    ("aten::arange", "start_out"): lambda start, end, step: np.arange(start, end, step),
    ("aten::any", "out"): lambda x, dim, keepdim: np.any(x != 0, axis=_axes(x, dim), keepdims=keepdim),
    ("aten::any", "dims_out"): lambda x, dims, keepdim: np.any(x != 0, axis=_axes(x, dims), keepdims=keepdim),
    ("aten::any", "all_out"): lambda x: np.any(x != 0),
    ("aten::all", "out"): lambda x, dim, keepdim: np.all(x != 0, axis=_axes(x, dim), keepdims=keepdim),
    ("aten::all", "dims_out"): lambda x, dims, keepdim: np.all(x != 0, axis=_axes(x, dims), keepdims=keepdim),
    ("aten::all", "all_out"): lambda x: np.all(x != 0),
    ("aten::max", "unary_out"): np.max,
    ("aten::min", "unary_out"): np.min,
    ("aten::max", "dim_max"): _extreme(np.max, np.argmax),
    ("aten::min", "dim_min"): _extreme(np.min, np.argmin),
    ("aten::mean", "dtype_out"): lambda x, *_: np.mean(x, dtype=np.float64),
    ("aten::var", "correction_out"): _variance,
    ("aten::cumsum", "out"): _cumsum,
    **SELECTIONS,
}
