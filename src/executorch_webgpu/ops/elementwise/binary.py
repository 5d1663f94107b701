"""Binary operators with broadcasting, and those of a tensor that comes after a number. A new operator is a new row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..values import Tensor
from .broadcast import Expression, apply_broadcast
from .element import compute_type, is_float, quiet
from .unary import Scalar, apply_unary


@dataclass(frozen=True)
class Binary:
    """``wgsl`` is an expression in the vec4s ``a`` and ``b``: numbers, or bools where the output is bool.

    ``of_integers`` is what it is where integers are computed with, if that differs. ``jumps``: the result jumps where
    an operand hardly changes.
    """

    wgsl: str
    reference: Callable[..., Any]
    of_integers: str | None = None
    jumps: bool = False

    def expression(self, compute: str) -> str:
        return self.of_integers if self.of_integers is not None and compute == "i32" else self.wgsl


# WGSL leaves min and max of a NaN open, naga makes != an ordered comparison, false for a NaN, and drivers assume that
# x == x holds. So a NaN is looked for by its bits; min and max keep it, and it is unequal to everything.
_ANY_NAN = "is_nan(a) | is_nan(b)"
# What a cast to bool makes of a float: NaN and the subnormals are true, though a device may compare those as 0.
_TRUE_A, _TRUE_B = (f"(magnitude_bits({x}) != vec4<u32>(0u))" for x in "ab")
BINARY = {
    "aten.mul.Tensor": Binary("a * b", np.multiply),
    "aten.div.Tensor": Binary("a / b", np.divide),
    "aten.minimum.default": Binary(f"select(min(a, b), a + b, {_ANY_NAN})", np.minimum, "min(a, b)"),
    "aten.maximum.default": Binary(f"select(max(a, b), a + b, {_ANY_NAN})", np.maximum, "max(a, b)"),
    "aten.fmin.default": Binary("select(select(min(a, b), a, is_nan(b)), b, is_nan(a))", np.fmin, "min(a, b)"),
    "aten.fmax.default": Binary("select(select(max(a, b), a, is_nan(b)), b, is_nan(a))", np.fmax, "max(a, b)"),
    "aten.eq.Tensor": Binary("a == b", np.equal, jumps=True),
    "aten.ne.Tensor": Binary("!(a == b)", np.not_equal, jumps=True),
    "aten.lt.Tensor": Binary("a < b", np.less, jumps=True),
    "aten.le.Tensor": Binary("a <= b", np.less_equal, jumps=True),
    "aten.gt.Tensor": Binary("a > b", np.greater, jumps=True),
    "aten.ge.Tensor": Binary("a >= b", np.greater_equal, jumps=True),
    "aten.logical_and.default": Binary(f"{_TRUE_A} & {_TRUE_B}", np.logical_and, "(a != V(0)) & (b != V(0))"),
    "aten.logical_or.default": Binary(f"{_TRUE_A} | {_TRUE_B}", np.logical_or, "(a != V(0)) | (b != V(0))"),
    "aten.logical_xor.default": Binary(f"{_TRUE_A} != {_TRUE_B}", np.logical_xor, "(a != V(0)) != (b != V(0))"),
    "aten.heaviside.default": Binary(
        "select(select(V(0), V(1), a > V(0)), b, a == V(0))",
        lambda a, b: np.where(a == 0, b, np.where(a > 0, 1, 0)),
        jumps=True,
    ),
}

# Of floats.
FLOAT_BINARY = {
    "aten.atan2.default": Binary("arctangent2(a, b)", np.arctan2),
    "aten.copysign.Tensor": Binary("with_sign(a, b)", np.copysign),
    "aten.hypot.default": Binary("hypotenuse(a, b)", np.hypot),
}

# These take a number for p as a third argument.
WITH_ALPHA = {
    "aten.add.Tensor": Binary("a + p * b", lambda a, b, alpha: a + alpha * b),
    "aten.sub.Tensor": Binary("a - p * b", lambda a, b, alpha: a - alpha * b),
    "aten.rsub.Tensor": Binary("b - p * a", lambda a, b, alpha: b - alpha * a),
}


def apply_binary(planner: Planner, row: Binary, a: Tensor, b: Tensor, out: Tensor, p: Scalar = 0) -> None:
    """``out`` = what a row of a table says; a float result of integers, as of div.Tensor, is computed in floats."""
    compute = compute_type([a, b, out], [p])
    apply_broadcast(planner, [a, b], out, Expression(row.expression(compute), p, compute))


def _register(name: str, row: Binary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("a", "b"), discontinuous=row.jumps, elementwise=True)
    def plan(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
        apply_binary(planner, row, a, b, out)


def _register_float(name: str, row: Binary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("a", "b"), discontinuous=row.jumps, elementwise=True)
    def plan(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
        planner.check(is_float(out), f"{name}: {out} must have a float dtype")
        apply_binary(planner, row, a, b, out)


def _register_with_alpha(name: str, row: Binary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("a", "b", "alpha"), elementwise=True)
    def plan(planner: Planner, a: Tensor, b: Tensor, alpha: Scalar, out: Tensor) -> None:
        apply_binary(planner, row, a, b, out, alpha)


for _name, _row in BINARY.items():
    _register(_name, _row)
for _name, _row in FLOAT_BINARY.items():
    _register_float(_name, _row)
for _name, _row in WITH_ALPHA.items():
    _register_with_alpha(_name, _row)


@op("aten.copysign.Scalar", reference=quiet(np.copysign), promoted=("x", "sign"), elementwise=True)
def copysign_scalar(planner: Planner, x: Tensor, sign: Scalar, out: Tensor) -> None:
    """The size of ``x`` with the sign of the number ``sign``."""
    planner.check(is_float(out), f"copysign: {out} must have a float dtype")
    apply_unary(planner, x, out, "with_sign(x, p)", sign, compute="f32")


@op(
    "aten.lerp.Scalar",
    reference=quiet(lambda a, b, weight: a + weight * (b - a) if abs(weight) < 0.5 else b - (b - a) * (1 - weight)),
    promoted=("a", "b"),
    elementwise=True,
)
def lerp(planner: Planner, a: Tensor, b: Tensor, weight: Scalar, out: Tensor) -> None:
    """From ``a``, ``weight`` of the way to ``b``."""
    planner.check(is_float(out), f"lerp: {out} must have a float dtype")
    expression = "a + p * (b - a)" if abs(weight) < 0.5 else "b - (b - a) * (V(1) - p)"
    apply_broadcast(planner, [a, b], out, Expression(expression, weight, "f32"))


# -- powers -----------------------------------------------------------------------------------------------------------


def power_reference(base: Any, exponent: Any) -> Any:
    """Of integers, which wrap, too: a negative exponent leaves something of 1 and -1 only."""
    if np.result_type(base, exponent).kind == "f" or not np.any(np.asarray(exponent) < 0):
        return np.power(base, exponent)
    base, exponent = np.broadcast_arrays(base, exponent)
    unit = np.where(base == 1, 1, np.where(base == -1, np.where(exponent % 2 != 0, -1, 1), 0))
    return np.where(exponent < 0, unit, np.power(base, np.maximum(exponent, 0)))


POWER = Binary("power(a, b)", power_reference, "power_i32(a, b)")


@op("aten.pow.Tensor_Tensor", reference=quiet(power_reference), promoted=("a", "b"), elementwise=True)
def pow_tensor(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
    """``a`` to the power of ``b``: NaN for a negative base and a fractional exponent; integers wrap."""
    apply_binary(planner, POWER, a, b, out)


@op("aten.pow.Tensor_Scalar", reference=quiet(power_reference), promoted=("x", "exponent"), elementwise=True)
def pow_scalar(planner: Planner, x: Tensor, exponent: Scalar, out: Tensor) -> None:
    """``x`` to the power of ``exponent``; integers wrap."""
    if compute_type([x, out], [exponent]) == "i32":
        planner.check(exponent >= 0, f"pow: integers cannot have the power {exponent}")
        apply_unary(planner, x, out, "power_i32(x, p)", exponent)
    else:
        known = {0.5: "sqrt(x)", 1: "x", 2: "x * x", 3: "x * x * x", -1: "1.0 / x"}
        apply_unary(planner, x, out, known.get(exponent, "power(x, p)"), exponent, compute="f32")


@op(
    "aten.pow.Scalar",
    reference=quiet(power_reference),
    promoted=("base", "x"),
    elementwise=True,
)
def scalar_pow(planner: Planner, base: Scalar, x: Tensor, out: Tensor) -> None:
    """``base`` to the power of ``x``; integers wrap."""
    floats = compute_type([x, out], [base]) == "f32"
    expression = "exponential2(x)" if base == 2 else "power(p, x)"
    apply_unary(planner, x, out, expression if floats else "power_i32(p, x)", base)
