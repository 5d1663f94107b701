"""The dtype in which torch computes elementwise operators, and arguments that are brought to it.

Source: the type promotion rules of torch. Three kinds of operands count in turn: tensors with dimensions, tensors
without, and numbers. A later kind changes the result only where it is of a higher category (bool, integer, float).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .dtypes import BFLOAT16, is_float

_DEFAULT_FLOAT = np.dtype(np.float32)
_HALVES = (np.dtype(np.float16), BFLOAT16)


def common_dtype(operands: Sequence[Any]) -> np.dtype:
    """What torch calls the result type of arrays and numbers."""
    kinds: list[list[np.dtype]] = [[], [], []]
    for operand in operands:
        if not isinstance(operand, np.ndarray):
            kinds[2].append(_dtype_of_number(operand))
        else:
            kinds[0 if operand.ndim else 1].append(operand.dtype)
    result: np.dtype | None = None
    for dtypes in kinds:
        if dtypes and (result is None or _category(_joined(dtypes)) > _category(result)):
            result = _joined(dtypes)
    assert result is not None
    return result


def promoted(operands: Sequence[Any], result: np.dtype | None, *, discontinuous: bool) -> list[Any]:
    """Arrays and numbers (None stays None) in the dtype to compute in: float32 where torch stores 16 bits.

    ``result``: the dtype of the output, if that is a tensor; a float one computes integers as floats.
    ``discontinuous``: numbers are rounded to the tensors' 16 bits first.
    """
    dtype = common_dtype([operand for operand in operands if operand is not None])
    if result is not None and is_float(result) and not is_float(dtype):
        dtype = result
    compute = _DEFAULT_FLOAT if dtype in _HALVES else dtype
    with np.errstate(all="ignore"):
        return [
            None if operand is None else _as(operand, dtype if discontinuous else compute, compute)
            for operand in operands
        ]


def _as(operand: Any, dtype: np.dtype, compute: np.dtype) -> Any:
    array = np.asarray(operand)
    if array.dtype.kind == "O":  # an integer beyond 64 bits
        array = np.asarray(int(operand) % 2**64, np.uint64)
    array = array.astype(dtype, copy=False).astype(compute, copy=False)
    return array if isinstance(operand, np.ndarray) else array[()]


def _category(dtype: np.dtype) -> int:
    return 2 if is_float(dtype) else 0 if dtype.kind == "b" else 1


def _joined(dtypes: Sequence[np.dtype]) -> np.dtype:
    """The smallest dtype of the highest category that holds what those of it hold."""
    highest = max(map(_category, dtypes))
    result, *others = (dtype for dtype in dtypes if _category(dtype) == highest)
    for other in others:
        mixed_halves = result != other and result in _HALVES and other in _HALVES
        result = _DEFAULT_FLOAT if mixed_halves else np.promote_types(result, other)
    return result


def _dtype_of_number(value: Any) -> np.dtype:
    if isinstance(value, bool | np.bool_):
        return np.dtype(np.bool_)
    return np.dtype(np.int64) if isinstance(value, int | np.integer) else _DEFAULT_FLOAT
