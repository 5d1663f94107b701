"""Unary operators, some with scalar arguments: one kernel template. A new operator is a new row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..shapes import ceil_div
from ..values import INT32_MAX, INT32_MIN, Tensor
from .element import WORKGROUP, as_scalar, check_scalars, compute_type, is_float, quiet

Scalar = int | float


@dataclass(frozen=True)
class Unary:
    """``wgsl`` is an expression in the vec4s ``x`` and, for scalar arguments, ``p`` and ``q``."""

    wgsl: str
    reference: Callable[..., Any]


# Of floats.
FLOAT = {
    "aten.cos.default": Unary("cos(x)", np.cos),
    "aten.exp.default": Unary("exp(x)", np.exp),
    "aten.hardswish.default": Unary("x * clamp(x + 3.0, V(0), V(6)) / 6.0", lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "aten.log.default": Unary("log(x)", np.log),
    "aten.log10.default": Unary("log2(x) * 0.30102999566398120", np.log10),
    "aten.reciprocal.default": Unary("1.0 / x", lambda x: 1 / x),
    "aten.round.default": Unary("round(x)", np.round),
    "aten.rsqrt.default": Unary("inverseSqrt(x)", lambda x: 1 / np.sqrt(x)),
    "aten.sigmoid.default": Unary("sigmoid(x)", lambda x: 1 / (1 + np.exp(-x))),
    "aten.sin.default": Unary("sin(x)", np.sin),
    "aten.sqrt.default": Unary("sqrt(x)", np.sqrt),
    "aten.tanh.default": Unary("bounded_tanh(x)", np.tanh),
}

# Of any dtype.
PLAIN = {
    "aten.abs.default": Unary("abs(x)", np.abs),
    "aten.logical_not.default": Unary("x == V(0)", np.logical_not),
    "aten.neg.default": Unary("-x", np.negative),
}

WITH_SCALAR = {
    "aten.eq.Scalar": Unary("x == p", np.equal),
    "aten.ne.Scalar": Unary("!(x == p)", np.not_equal),
    "aten.lt.Scalar": Unary("x < p", np.less),
    "aten.le.Scalar": Unary("x <= p", np.less_equal),
    "aten.gt.Scalar": Unary("x > p", np.greater),
    "aten.ge.Scalar": Unary("x >= p", np.greater_equal),
    "aten.mul.Scalar": Unary("x * p", np.multiply),
    "aten.div.Scalar": Unary("x / p", np.divide),
    "aten.leaky_relu.default": Unary("select(x * p, x, x > V(0))", lambda x, slope: np.where(x > 0, x, x * slope)),
    "aten.hardshrink.default": Unary("select(x, V(0), abs(x) <= p)", lambda x, lam: np.where(np.abs(x) > lam, x, 0)),
}

# Comparisons: whether one holds for a number below all others, and for one above.
_ORDERS = {
    "aten.eq.Scalar": (False, False),
    "aten.ne.Scalar": (True, True),
    "aten.lt.Scalar": (False, True),
    "aten.le.Scalar": (False, True),
    "aten.gt.Scalar": (True, False),
    "aten.ge.Scalar": (True, False),
}
_DISCONTINUOUS = frozenset((*_ORDERS, "aten.hardshrink.default", "aten.round.default"))

WITH_TWO_SCALARS = {
    "aten.add.Scalar": Unary("x + p * q", lambda x, other, alpha: x + other * alpha),
    "aten.sub.Scalar": Unary("x - p * q", lambda x, other, alpha: x - other * alpha),
}

GELU: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    "none": (
        "gelu_erf(x)",
        lambda x: 0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))),
    ),
    "tanh": (
        "gelu_tanh(x)",
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
}


def apply_unary(
    planner: Planner,
    x: Tensor,
    out: Tensor,
    expression: str,
    p: Scalar = 0,
    q: Scalar = 0,
    compute: str | None = None,
) -> None:
    """``out`` = ``expression`` of every element of ``x``; ``compute`` is the WGSL scalar type to do it in."""
    planner.resize(out)
    compute = compute or compute_type([x, out], [p, q])
    check_scalars(planner, [p, q], compute)
    quads = ceil_div(x.numel, 4)
    planner.dispatch(
        "elementwise/unary",
        planner.grid_1d(quads, WORKGROUP),
        {"input": x, "out": out},
        {"quads": quads, "p": as_scalar(p, compute), "q": as_scalar(q, compute)},
        overrides={"wg_size": WORKGROUP},
        template={"x": x.dtype, "out": out.dtype, "compute": compute, "expression": expression},
    )


def _register_float(name: str, row: Unary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("x",), discontinuous=name in _DISCONTINUOUS, elementwise=True)
    def plan(planner: Planner, x: Tensor, out: Tensor) -> None:
        planner.check(is_float(out), f"{name}: {out} must have a float dtype")
        apply_unary(planner, x, out, row.wgsl)


def _register_plain(name: str, row: Unary) -> None:
    @op(name, reference=row.reference, promoted=("x",), elementwise=True)
    def plan(planner: Planner, x: Tensor, out: Tensor) -> None:
        apply_unary(planner, x, out, row.wgsl)


def _register_with_scalar(name: str, row: Unary) -> None:
    @op(
        name,
        reference=quiet(row.reference),
        promoted=("x", "scalar"),
        discontinuous=name in _DISCONTINUOUS,
        elementwise=True,
    )
    def plan(planner: Planner, x: Tensor, scalar: Scalar, out: Tensor) -> None:
        if name in _ORDERS and compute_type([x, out], [scalar]) == "i32" and not INT32_MIN <= scalar <= INT32_MAX:
            holds = _ORDERS[name][scalar > 0]  # no element is as large
            apply_unary(planner, x, out, "x == x" if holds else "x != x")
        else:
            apply_unary(planner, x, out, row.wgsl, scalar)


def _register_with_two_scalars(name: str, row: Unary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("x", "scalar", "alpha"), elementwise=True)
    def plan(planner: Planner, x: Tensor, scalar: Scalar, alpha: Scalar, out: Tensor) -> None:
        apply_unary(planner, x, out, row.wgsl, scalar, alpha)


for _name, _row in FLOAT.items():
    _register_float(_name, _row)
for _name, _row in PLAIN.items():
    _register_plain(_name, _row)
for _name, _row in WITH_SCALAR.items():
    _register_with_scalar(_name, _row)
for _name, _row in WITH_TWO_SCALARS.items():
    _register_with_two_scalars(_name, _row)


def _bounded(
    planner: Planner, x: Tensor, out: Tensor, expression: str, bounds: list[Scalar], p: Scalar, q: Scalar
) -> None:
    """An expression of min and max, which would drop the NaN of floats."""
    compute = compute_type([x, out], bounds)
    if compute == "i32":  # a bound beyond all integers bounds none
        p, q = as_scalar(p, compute), as_scalar(q, compute)
    apply_unary(planner, x, out, f"keep_nan(x, {expression})" if compute == "f32" else expression, p, q, compute)


@op("aten.relu.default", reference=lambda x: np.maximum(x, 0), promoted=("x",), elementwise=True)
def relu(planner: Planner, x: Tensor, out: Tensor) -> None:
    """``x``, or 0 where it is negative."""
    _bounded(planner, x, out, "max(x, V(0))", [], 0, 0)


def clamp_reference(x: np.ndarray, low: Scalar | None, high: Scalar | None) -> Any:
    raised = x if low is None else np.maximum(x, low)
    return raised if high is None else np.minimum(raised, high)


@op(
    "aten.clamp.default",
    "aten.hardtanh.default",
    reference=clamp_reference,
    promoted=("x", "low", "high"),
    elementwise=True,
)
def clamp(planner: Planner, x: Tensor, low: Scalar | None, high: Scalar | None, out: Tensor) -> None:
    """``x`` held between ``low`` and ``high``, either of which may be None; ``high`` wins a crossing."""
    bounds = [b for b in (low, high) if b is not None and math.isfinite(b)]
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    _bounded(planner, x, out, "min(max(x, p), q)", bounds, low, high)


@op("aten.gelu.default", reference=lambda x, approximate: GELU[approximate][1](x), promoted=("x",), elementwise=True)
def gelu(planner: Planner, x: Tensor, approximate: str, out: Tensor) -> None:
    """GELU; ``approximate`` is "none" (by the error function) or "tanh"."""
    planner.check(approximate in GELU, f"gelu: there is no approximation {approximate!r}")
    planner.check(is_float(out), f"gelu: {out} must have a float dtype")
    apply_unary(planner, x, out, GELU[approximate][0])


@op("aten.pow.Tensor_Scalar", reference=quiet(np.power), promoted=("x", "exponent"), elementwise=True)
def pow_scalar(planner: Planner, x: Tensor, exponent: Scalar, out: Tensor) -> None:
    """``x`` to the power of ``exponent``, of floats."""
    planner.check(is_float(out), f"pow: {out} must have a float dtype")
    apply_unary(planner, x, out, "x * x" if exponent == 2 else "power(x, p)", exponent)


@op(
    "aten.bitwise_not.default",
    reference=lambda x: np.logical_not(x) if x.dtype == bool else ~x,
    promoted=("x",),
    elementwise=True,
)
def bitwise_not(planner: Planner, x: Tensor, out: Tensor) -> None:
    """Every bit of an integer flipped; of a bool, its only one."""
    planner.check(not is_float(x), f"bitwise_not: {x} must hold integers or bools")
    apply_unary(planner, x, out, "x ^ p", 1 if x.dtype == "bool" else -1)
