"""Host kernels for instructions of a program that the device does not run.

Their meaning is that of our operators, so they are the operators' NumPy references: ``aten::add.out`` on the host is
the reference of ``aten.add.Tensor``. Elementwise operators are computed in the dtype in which torch computes them,
since comparisons and rounding show every bit; all others in float64, rounded once. Right rather than fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ops.registry import Op
from .dtypes import is_float
from .kernels import OTHERS, SCALAR_OPERATORS
from .names import arguments, operator_of
from .promotion import promoted

Kernel = Callable[[Sequence[Any], np.dtype | None], Any]


def host_kernel(name: str, overload: str, arity: int) -> Kernel | None:
    """The kernel for an ExecuTorch operator such as ``aten::add`` / ``out``, or None.

    ``arity``: its number of inputs, without outputs. The kernel takes them as arrays, numbers and lists, with the dtype
    of its first output if that is a tensor, and returns the result, or a tuple of them. Arrays that it writes besides
    are float64 where they hold floats, and the caller's own.
    """
    namespace, _, stem = name.partition("::")
    if namespace == "executorch_prim" and (scalar := SCALAR_OPERATORS.get(stem)):
        return lambda args, _: scalar(*args)
    if other := OTHERS.get((name, overload)):
        return lambda args, _: other(*args)
    op = operator_of(name, overload, arity)
    if op is None:
        return None
    return lambda args, dtype: op.reference(*_prepared(op, arguments(op, args), dtype))


def _prepared(op: Op, args: Sequence[Any], dtype: np.dtype | None) -> list[Any]:
    """Arguments as the reference of ``op`` computes with them."""
    if not op.promoted:
        return [_widened(a) for a in args]
    places = [op.parameters.index(name) for name in op.promoted]
    prepared = list(args)
    for place, value in zip(
        places, promoted([args[p] for p in places], dtype, discontinuous=op.discontinuous), strict=True
    ):
        prepared[place] = value
    return prepared


def _widened(value: Any) -> Any:
    if isinstance(value, list):
        return [_widened(item) for item in value]
    if isinstance(value, np.ndarray) and is_float(value.dtype):
        return value.astype(np.float64, copy=False)
    return value
