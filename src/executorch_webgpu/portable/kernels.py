"""Host kernels of operators that have none on the device, or take other arguments there.

They take a program's arguments as arrays, numbers and lists, and return a result or a tuple of them, which the
caller casts to the dtypes of the outputs. Where torch refuses a value, they raise IndexError, ValueError or
ArithmeticError.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

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
    "sym_not": operator.not_,
    "sym_float": float,
    "truediv": operator.truediv,
    "ceil": math.ceil,
    "round": round,
    "trunc": math.trunc,
}


def _copy_index(target: Array, source: Array, index: int) -> Any:
    """``target`` with ``source`` as its row ``index``, which is the last one: how loops collect their results."""
    return np.concatenate([target[:index], source[None]])


# What remains, by name and overload.
OTHERS: dict[tuple[str, str], Simple] = {
    ("aten::_local_scalar_dense", ""): lambda x: x.reshape(-1)[0].item(),
    ("aten::copy_", ""): lambda x, source, *_: np.broadcast_to(source, x.shape),
    ("executorch_prim::et_copy_index", "tensor"): _copy_index,
    **SELECTIONS,
}
