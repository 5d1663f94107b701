"""Operators of the bits of integers and bools: of two tensors, and of a tensor and a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..values import Tensor
from .binary import Binary, apply_binary
from .element import is_float
from .quotients import of_number
from .unary import apply_row, apply_unary


def _shifted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Shifts by less than 0, or by all bits and more, leave no bit, or the sign."""

    def run(a: Any, b: Any) -> Any:
        dtype = np.result_type(a, b)
        bits = dtype.itemsize * 8
        outside = (np.asarray(b) < 0) | (np.asarray(b) >= bits)
        kept = function(a, np.where(outside, 0, b).astype(dtype))
        return np.where(outside, 0 if function is np.left_shift else np.where(np.asarray(a) < 0, -1, 0), kept).astype(
            dtype
        )

    return run


BITWISE = {
    "aten.bitwise_and.Tensor": Binary("a & b", np.bitwise_and),
    "aten.bitwise_or.Tensor": Binary("a | b", np.bitwise_or),
    "aten.bitwise_xor.Tensor": Binary("a ^ b", np.bitwise_xor),
}
_LEFT = Binary("shift_left(a, b)", _shifted(np.left_shift))
_RIGHT = Binary("shift_right(a, b)", _shifted(np.right_shift))
SHIFTS = {
    "aten.bitwise_left_shift.Tensor": _LEFT,
    "aten.__lshift__.Tensor": _LEFT,
    "aten.bitwise_right_shift.Tensor": _RIGHT,
    "aten.__rshift__.Tensor": _RIGHT,
}
WITH_NUMBER = {
    **{name.replace("Tensor", "Scalar"): row for name, row in BITWISE.items()},
    "aten.bitwise_left_shift.Tensor_Scalar": _LEFT,
    "aten.__lshift__.Scalar": _LEFT,
    "aten.bitwise_right_shift.Tensor_Scalar": _RIGHT,
    "aten.__rshift__.Scalar": _RIGHT,
}
OF_NUMBER = {
    **{name.replace("Tensor", "Scalar_Tensor"): row for name, row in BITWISE.items()},
    "aten.bitwise_left_shift.Scalar_Tensor": _LEFT,
    "aten.bitwise_right_shift.Scalar_Tensor": _RIGHT,
}


def _check(planner: Planner, name: str, *tensors: Tensor) -> None:
    found = " and ".join(map(str, tensors))
    planner.check(not any(map(is_float, tensors)), f"{name}: {found} must hold integers or bools")


def _register(name: str, row: Binary) -> None:
    @op(name, reference=row.reference, promoted=("a", "b"), elementwise=True)
    def plan(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
        _check(planner, name, a, b)
        apply_binary(planner, row, a, b, out)


def _register_with_number(name: str, row: Binary) -> None:
    @op(name, reference=row.reference, promoted=("x", "number"), elementwise=True)
    def plan(planner: Planner, x: Tensor, number: int, out: Tensor) -> None:
        _check(planner, name, x)
        apply_row(planner, of_number(row), x, out, int(number))


def _register_of_number(name: str, row: Binary) -> None:
    @op(name, reference=row.reference, promoted=("number", "x"), elementwise=True)
    def plan(planner: Planner, number: int, x: Tensor, out: Tensor) -> None:
        _check(planner, name, x)
        apply_row(planner, of_number(row, first=True), x, out, int(number))


for _name, _row in {**BITWISE, **SHIFTS}.items():
    _register(_name, _row)
for _name, _row in WITH_NUMBER.items():
    _register_with_number(_name, _row)
for _name, _row in OF_NUMBER.items():
    _register_of_number(_name, _row)


@op(
    "aten.bitwise_not.default",
    reference=lambda x: np.logical_not(x) if x.dtype == bool else ~x,
    promoted=("x",),
    elementwise=True,
)
def bitwise_not(planner: Planner, x: Tensor, out: Tensor) -> None:
    """Every bit of an integer flipped; of a bool, its only one."""
    _check(planner, "bitwise_not", x)
    apply_unary(planner, x, out, "x ^ p", 1 if x.dtype == "bool" else -1)
