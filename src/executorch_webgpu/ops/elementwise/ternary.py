"""Operators of three tensors, one of which may be a number or absent, that broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..values import Tensor
from .broadcast import Expression, apply_broadcast
from .element import compute_type, is_float, quiet
from .unary import Scalar, apply_unary


def where_reference(condition: np.ndarray, a: Any, b: Any) -> Any:
    return np.where(condition != 0, a, b)


@op("aten.where.self", reference=where_reference, promoted=("a", "b"), elementwise=True)
def where(planner: Planner, condition: Tensor, a: Tensor, b: Tensor, out: Tensor) -> None:
    """``a`` where the bool ``condition`` holds, else ``b``; the three broadcast."""
    _check_condition(planner, condition)
    moved = a.dtype == b.dtype == out.dtype  # as they are stored, so that every bit stays
    expression = Expression("select(c, b, !(a == V(0)))", compute="u32" if moved else None)
    apply_broadcast(planner, [condition, a, b], out, expression)


@op("aten.where.ScalarOther", reference=where_reference, promoted=("a", "b"), elementwise=True)
def where_scalar_other(planner: Planner, condition: Tensor, a: Tensor, b: Scalar, out: Tensor) -> None:
    """``a`` where the bool ``condition`` holds, else the number ``b``."""
    _check_condition(planner, condition)
    apply_broadcast(planner, [condition, a], out, Expression("select(p, b, !(a == V(0)))", b))


@op("aten.where.ScalarSelf", reference=where_reference, promoted=("a", "b"), elementwise=True)
def where_scalar_self(planner: Planner, condition: Tensor, a: Scalar, b: Tensor, out: Tensor) -> None:
    """The number ``a`` where the bool ``condition`` holds, else ``b``."""
    _check_condition(planner, condition)
    apply_broadcast(planner, [condition, b], out, Expression("select(b, p, !(a == V(0)))", a))


@op("aten.where.Scalar", reference=where_reference, promoted=("a", "b"), elementwise=True)
def where_scalars(planner: Planner, condition: Tensor, a: Scalar, b: Scalar, out: Tensor) -> None:
    """The number ``a`` where the bool ``condition`` holds, else ``b``."""
    _check_condition(planner, condition)
    apply_unary(planner, condition, out, "select(q, p, !(x == V(0)))", a, b)


def _check_condition(planner: Planner, condition: Tensor) -> None:
    planner.check(condition.dtype in ("bool", "uint8"), f"where: the condition {condition} must hold bools")


@op(
    "aten.fill.Tensor",
    reference=lambda x, value: np.broadcast_to(value, x.shape),
    elementwise=True,
)
def fill(planner: Planner, x: Tensor, value: Tensor, out: Tensor) -> None:
    """The one element of ``value`` everywhere, with the dims of ``x``; any dtype."""
    planner.check(value.rank == 0, f"fill: {value} must have no dimensions")
    moved = value.dtype == out.dtype == x.dtype
    apply_broadcast(planner, [x, value], out, Expression("b", compute="u32" if moved else None))


def addcdiv_reference(x: np.ndarray, a: np.ndarray, b: np.ndarray, value: Scalar) -> Any:
    return x + value * (a / b)


@op(
    "aten.addcmul.default",
    reference=quiet(lambda x, a, b, value: x + value * (a * b)),
    promoted=("x", "a", "b"),
    elementwise=True,
)
def addcmul(planner: Planner, x: Tensor, a: Tensor, b: Tensor, value: Scalar, out: Tensor) -> None:
    """``x + value * a * b``."""
    apply_broadcast(planner, [x, a, b], out, Expression("a + p * (b * c)", value))


@op("aten.addcdiv.default", reference=quiet(addcdiv_reference), promoted=("x", "a", "b"), elementwise=True)
def addcdiv(planner: Planner, x: Tensor, a: Tensor, b: Tensor, value: Scalar, out: Tensor) -> None:
    """``x + value * a / b``, of floats."""
    planner.check(is_float(out), f"addcdiv: {out} must have a float dtype")
    apply_broadcast(planner, [x, a, b], out, Expression("a + p * (b / c)", value, "f32"))


def lerp_reference(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> Any:
    return np.where(np.abs(weight) < 0.5, a + weight * (b - a), b - (b - a) * (1 - weight))


@op("aten.lerp.Tensor", reference=quiet(lerp_reference), promoted=("a", "b", "weight"), elementwise=True)
def lerp(planner: Planner, a: Tensor, b: Tensor, weight: Tensor, out: Tensor) -> None:
    """From ``a``, ``weight`` of the way to ``b``."""
    planner.check(is_float(out), f"lerp: {out} must have a float dtype")
    expression = "select(b - (b - a) * (V(1) - c), a + c * (b - a), abs(c) < V(0.5))"
    apply_broadcast(planner, [a, b, weight], out, Expression(expression, compute="f32"))


def clamp_reference(x: np.ndarray, low: np.ndarray | None, high: np.ndarray | None) -> Any:
    raised = x if low is None else np.maximum(x, low)
    return raised if high is None else np.minimum(raised, high)


def _larger(a: str, b: str) -> str:
    return f"select(max({a}, {b}), {a} + {b}, is_nan({a}) | is_nan({b}))"


def _smaller(a: str, b: str) -> str:
    return f"select(min({a}, {b}), {a} + {b}, is_nan({a}) | is_nan({b}))"


@op("aten.clamp.Tensor", reference=clamp_reference, promoted=("x", "low", "high"), elementwise=True)
def clamp_tensor(planner: Planner, x: Tensor, low: Tensor | None, high: Tensor | None, out: Tensor) -> None:
    """``x`` held between ``low`` and ``high``, one of which may be None; ``high`` wins a crossing, NaN stays."""
    bounds = [t for t in (low, high) if t is not None]
    planner.check(len(bounds) > 0, "clamp: there must be a bound")
    operands = [x, *bounds]
    integers = compute_type([*operands, out], []) == "i32"
    if low is not None and high is not None:
        expression = "min(max(a, b), c)" if integers else _both()
    elif low is not None:
        expression = "max(a, b)" if integers else _larger("a", "b")
    else:
        expression = "min(a, b)" if integers else _smaller("a", "b")
    apply_broadcast(planner, operands, out, Expression(expression))


def _both() -> str:
    """Of three floats; a sum is NaN where one of them is, but infinities of two signs are NaN, too."""
    nan = "select(select(c, b, is_nan(b)), a, is_nan(a))"
    return f"select(min(max(a, b), c), {nan}, is_nan(a) | is_nan(b) | is_nan(c))"


def _register_bound(name: str, expression: str, integers: str, reference: Any) -> None:
    @op(name, reference=reference, promoted=("x", "bound"), elementwise=True)
    def plan(planner: Planner, x: Tensor, bound: Tensor, out: Tensor) -> None:
        whole = compute_type([x, bound, out], []) == "i32"
        apply_broadcast(planner, [x, bound], out, Expression(integers if whole else expression))


_register_bound("aten.clamp_min.Tensor", _larger("a", "b"), "max(a, b)", np.maximum)
_register_bound("aten.clamp_max.Tensor", _smaller("a", "b"), "min(a, b)", np.minimum)
