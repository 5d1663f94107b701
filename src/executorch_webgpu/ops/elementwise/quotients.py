"""Quotients that are rounded, and remainders: of two tensors, and of a tensor and a number."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..values import Tensor
from .binary import Binary, apply_binary
from .element import quiet
from .unary import Scalar, Unary, apply_row


def _whole_quotient(a: np.ndarray, b: np.ndarray, *, down: bool) -> Any:
    """a / b, rounded down or else towards zero: of floats in their own precision, of integers exactly.

    Raises ZeroDivisionError when an integer is divided by 0.
    """
    if np.result_type(a, b).kind == "f":
        return np.floor_divide(a, b) if down else np.trunc(np.divide(a, b))
    _check_divisor(b)
    quotient = np.floor_divide(a, b)
    if down:
        return quotient
    return quotient + ((quotient < 0) & (quotient * b != a))


def _rest(a: np.ndarray, b: np.ndarray, *, of: Callable[..., Any]) -> Any:
    """A remainder. Raises ZeroDivisionError when an integer is divided by 0."""
    if np.result_type(a, b).kind != "f":
        _check_divisor(b)
    return of(a, b)


def _check_divisor(b: np.ndarray) -> None:
    if not np.all(b):
        raise ZeroDivisionError("an integer is divided by 0")


# By how the quotient is rounded. An integer divided by 0 is an error in torch, and stays as it is on the device.
QUOTIENTS: dict[str | None, Binary] = {
    None: Binary("a / b", np.divide),
    "floor": Binary(
        "floor_quotient(a, b)", partial(_whole_quotient, down=True), "floor_quotient_i32(a, b)", jumps=True
    ),
    "trunc": Binary("trunc_quotient(a, b)", partial(_whole_quotient, down=False), "a / b", jumps=True),
}
REMAINDERS = {
    "remainder": Binary("remainder(a, b)", partial(_rest, of=np.remainder), "remainder_i32(a, b)", jumps=True),
    "fmod": Binary("fmod(a, b)", partial(_rest, of=np.fmod), "fmod_i32(a, b)", jumps=True),
}


def of_number(row: Binary, first: bool = False) -> Unary:
    """A row of ``a`` and ``b`` as one for a tensor ``x`` and the number ``p``, which is ``first`` or second."""
    a, b = ("p", "x") if first else ("x", "p")

    def written(expression: str) -> str:
        return re.sub(r"\b[ab]\b", lambda name: {"a": a, "b": b}[name[0]], expression)

    whole = None if row.of_integers is None else written(row.of_integers)
    return Unary(written(row.wgsl), row.reference, whole, row.jumps)


@op(
    "aten.div.Tensor_mode",
    reference=quiet(lambda a, b, mode: QUOTIENTS[mode].reference(a, b)),
    promoted=("a", "b"),
    discontinuous=True,
    elementwise=True,
)
def div_mode(planner: Planner, a: Tensor, b: Tensor, mode: str | None, out: Tensor) -> None:
    """``a / b``, rounded as ``mode`` says: None, "floor" or "trunc"."""
    planner.check(mode in QUOTIENTS, f"div.Tensor_mode: there is no rounding mode {mode!r}")
    apply_binary(planner, QUOTIENTS[mode], a, b, out)


@op(
    "aten.div.Scalar_mode",
    reference=quiet(lambda x, divisor, mode: QUOTIENTS[mode].reference(x, divisor)),
    promoted=("x", "divisor"),
    discontinuous=True,
    elementwise=True,
)
def div_scalar_mode(planner: Planner, x: Tensor, divisor: Scalar, mode: str | None, out: Tensor) -> None:
    """``x / divisor``, rounded as ``mode`` says: None, "floor" or "trunc"."""
    planner.check(mode in QUOTIENTS, f"div.Scalar_mode: there is no rounding mode {mode!r}")
    apply_row(planner, of_number(QUOTIENTS[mode]), x, out, divisor)


def _register(name: str, row: Binary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("a", "b"), discontinuous=True, elementwise=True)
    def plan(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
        apply_binary(planner, row, a, b, out)


def _register_with_number(name: str, row: Binary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("x", "divisor"), discontinuous=True, elementwise=True)
    def plan(planner: Planner, x: Tensor, divisor: Scalar, out: Tensor) -> None:
        apply_row(planner, of_number(row), x, out, divisor)


def _register_of_number(name: str, row: Binary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("number", "x"), discontinuous=True, elementwise=True)
    def plan(planner: Planner, number: Scalar, x: Tensor, out: Tensor) -> None:
        apply_row(planner, of_number(row, first=True), x, out, number)


_register("aten.floor_divide.default", QUOTIENTS["floor"])
_register_with_number("aten.floor_divide.Scalar", QUOTIENTS["floor"])
for _name, _row in REMAINDERS.items():
    _register(f"aten.{_name}.Tensor", _row)
    _register_with_number(f"aten.{_name}.Scalar", _row)
_register_of_number("aten.remainder.Scalar_Tensor", REMAINDERS["remainder"])
