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


def _divided(compute: Simple) -> Simple:
    """A remainder, whose divisor must not be 0 if it is an integer."""

    def run(a: Any, b: Any) -> Any:
        if np.result_type(a, b).kind != "f" and not np.all(b):
            raise ZeroDivisionError("an integer is divided by 0")
        return compute(a, b)

    return run


def _erf(x: Array) -> Any:
    return np.vectorize(math.erf, otypes=[float])(x)


# Element by element, in the dtype to which torch brings all arguments first. By name and overload.
ELEMENTWISE: dict[tuple[str, str], Simple] = {
    **{("aten::remainder", o): _divided(np.remainder) for o in ("Scalar_out", "Tensor_out")},
    **{("aten::fmod", o): _divided(np.fmod) for o in ("Scalar_out", "Tensor_out")},
    ("aten::isnan", "out"): lambda x: x != x,
    ("aten::isinf", "out"): np.isinf,
    ("aten::floor", "out"): np.floor,
    ("aten::ceil", "out"): np.ceil,
    ("aten::trunc", "out"): np.trunc,
    ("aten::sign", "out"): lambda x: np.where(x > 0, 1, np.where(x < 0, -1, 0)),
    ("aten::erf", "out"): _erf,
    ("aten::log1p", "out"): np.log1p,
    ("aten::expm1", "out"): np.expm1,
}


def _place(indices: Sequence[Array | None]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


def _index_put(x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False) -> Any:
    result = x.copy()
    if accumulate:
        np.add.at(result, _place(indices), values)
    else:
        result[_place(indices)] = values
    return result


def _copy_index(target: Array, source: Array, index: int) -> Any:
    """``target`` with ``source`` as its row ``index``, which is the last one: how loops collect their results."""
    return np.concatenate([target[:index], source[None]])


def _full_like(x: Array, value: Any, *_: Any) -> Any:
    return np.full(x.shape, value)


def _unique(x: Array, inverse: bool, counts: bool, dim: int | None = None) -> tuple[Array, Array, Array]:
    """Different elements, or parts along a dimension, in order; where each one went; how often each is there."""
    values, places, numbers = np.unique(x, return_inverse=True, return_counts=True, axis=dim, equal_nan=False)
    shape = x.shape if dim is None else (x.shape[dim],)
    return _asked_for(values, places.reshape(shape), numbers, inverse or dim is not None, counts or dim is not None)


def _unique_consecutive(x: Array, inverse: bool, counts: bool, dim: int | None) -> tuple[Array, Array, Array]:
    """The first element, or part along a dimension, of every run of equal ones; see ``_unique``."""
    rows = x.reshape(-1, 1) if dim is None else np.moveaxis(x, dim, 0).reshape(x.shape[dim], -1)
    new = np.ones(len(rows), bool)
    new[1:] = np.any(rows[1:] != rows[:-1], axis=1)
    first = np.flatnonzero(new)
    values = x.reshape(-1)[first] if dim is None else np.take(x, first, axis=dim)
    places = (np.cumsum(new) - 1).reshape(x.shape if dim is None else len(rows))
    numbers = np.diff(first, append=len(rows))
    return _asked_for(values, places, numbers, inverse or dim is not None, counts or dim is not None)


def _asked_for(values: Array, places: Array, numbers: Array, inverse: bool, counts: bool) -> tuple[Array, Array, Array]:
    """Results of which some are empty unless they are asked for; along a dimension, all always are."""
    nothing = np.zeros(0, np.int64)
    return values, places if inverse else nothing, numbers if counts else nothing


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
    ("aten::_unique2", "out"): lambda x, is_sorted, inverse, counts: _unique(x, inverse, counts),
    ("aten::unique_dim", "out"): lambda x, dim, is_sorted, inverse, counts: _unique(x, inverse, counts, dim),
    ("aten::unique_consecutive", "out"): _unique_consecutive,
    ("aten::arange", "start_out"): lambda start, end, step: np.arange(start, end, step),
    ("aten::index_put", "out"): _index_put,
}
