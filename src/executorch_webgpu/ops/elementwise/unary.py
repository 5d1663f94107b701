"""Unary operators, some with numbers beside the tensor: one kernel template. A new operator is a new row."""

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
    """``wgsl`` is an expression in the vec4s ``x`` and, for scalar arguments, ``p``, ``q`` and ``r``.

    ``of_integers`` is what it is where integers are computed with, if that differs. ``jumps``: the result jumps where
    ``x`` hardly changes.
    """

    wgsl: str
    reference: Callable[..., Any]
    of_integers: str | None = None
    jumps: bool = False

    def expression(self, compute: str) -> str:
        return self.of_integers if self.of_integers is not None and compute == "i32" else self.wgsl


def _whole(function: Callable[..., Any]) -> Callable[[np.ndarray], Any]:
    """A function that rounds, which leaves integers as they are."""
    return lambda x: function(x) if np.result_type(x).kind == "f" else x


_erf = np.vectorize(math.erf, otypes=[float])
_erfc = np.vectorize(math.erfc, otypes=[float])


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Any) -> Any:
    return np.logaddexp(x, 0)


# Of floats.
FLOAT = {
    "aten.acos.default": Unary("arccosine(x)", np.arccos),
    "aten.acosh.default": Unary("inverse_hyperbolic_cosine(x)", np.arccosh),
    "aten.asin.default": Unary("arcsine(x)", np.arcsin),
    "aten.asinh.default": Unary("inverse_hyperbolic_sine(x)", np.arcsinh),
    "aten.atan.default": Unary("arctangent(x)", np.arctan),
    "aten.atanh.default": Unary("inverse_hyperbolic_tangent(x)", np.arctanh),
    "aten.cos.default": Unary("cosine(x)", np.cos),
    "aten.cosh.default": Unary("hyperbolic_cosine(x)", np.cosh),
    "aten.erf.default": Unary("error_function(x)", _erf),
    "aten.erfc.default": Unary("erfc(x)", _erfc),
    "aten.exp.default": Unary("exponential(x)", np.exp),
    "aten.exp2.default": Unary("exponential2(x)", np.exp2),
    "aten.expm1.default": Unary("expm1(x)", np.expm1),
    "aten.hardsigmoid.default": Unary(
        "keep_nan(x, clamp(x + 3.0, V(0), V(6)) / 6.0)", lambda x: np.clip(x + 3, 0, 6) / 6
    ),
    "aten.hardswish.default": Unary("x * clamp(x + 3.0, V(0), V(6)) / 6.0", lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "aten.log.default": Unary("logarithm(x)", np.log),
    "aten.log10.default": Unary("logarithm10(x)", np.log10),
    "aten.log1p.default": Unary("log1p(x)", np.log1p),
    "aten.log2.default": Unary("logarithm2(x)", np.log2),
    "aten.log_sigmoid.default": Unary("min(x, V(0)) - log1p(exponential(-abs(x)))", lambda x: -_softplus(-x)),
    "aten.mish.default": Unary("mish(x)", lambda x: x * np.tanh(_softplus(x))),
    "aten.reciprocal.default": Unary("1.0 / x", lambda x: 1 / x),
    "aten.rsqrt.default": Unary("inverseSqrt(x)", lambda x: 1 / np.sqrt(x)),
    "aten.sigmoid.default": Unary("sigmoid(x)", _sigmoid),
    "aten.silu.default": Unary("x * sigmoid(x)", lambda x: x * _sigmoid(x)),
    "aten.sin.default": Unary("sine(x)", np.sin),
    "aten.sinh.default": Unary("hyperbolic_sine(x)", np.sinh),
    "aten.sqrt.default": Unary("sqrt(x)", np.sqrt),
    "aten.tan.default": Unary("tangent(x)", np.tan),
    "aten.tanh.default": Unary("hyperbolic_tangent(x)", np.tanh),
}


def _sign(x: Any) -> Any:
    return np.where(x > 0, 1, np.where(x < 0, -1, 0))


# Of any dtype.
PLAIN = {
    "aten.abs.default": Unary("abs(x)", np.abs),
    "aten.ceil.default": Unary("ceil(x)", _whole(np.ceil), "x", jumps=True),
    "aten.floor.default": Unary("floor(x)", _whole(np.floor), "x", jumps=True),
    "aten.frac.default": Unary("x - trunc(x)", lambda x: x - np.trunc(x), "V(0)", jumps=True),
    "aten.isfinite.default": Unary("magnitude_bits(x) < vec4<u32>(0x7f800000u)", np.isfinite, "V(1)"),
    "aten.isinf.default": Unary("is_infinite(x)", np.isinf, "V(0)"),
    "aten.isnan.default": Unary("is_nan(x)", lambda x: x != x, "V(0)"),
    "aten.logical_not.default": Unary("magnitude_bits(x) == vec4<u32>(0u)", np.logical_not, "x == V(0)"),
    "aten.neg.default": Unary("-x", np.negative),
    "aten.relu.default": Unary("keep_nan(x, max(x, V(0)))", lambda x: np.maximum(x, 0), "max(x, V(0))"),
    "aten.round.default": Unary("round(x)", _whole(np.round), "x", jumps=True),
    "aten.sgn.default": Unary("sign(x)", _sign, jumps=True),
    "aten.sign.default": Unary("select(sign(x), V(0), is_nan(x))", _sign, "sign(x)", jumps=True),
    "aten.square.default": Unary("x * x", np.square),
    "aten.trunc.default": Unary("trunc(x)", _whole(np.trunc), "x", jumps=True),
}

WITH_SCALAR = {
    "aten.eq.Scalar": Unary("x == p", np.equal, jumps=True),
    "aten.ne.Scalar": Unary("!(x == p)", np.not_equal, jumps=True),
    "aten.lt.Scalar": Unary("x < p", np.less, jumps=True),
    "aten.le.Scalar": Unary("x <= p", np.less_equal, jumps=True),
    "aten.gt.Scalar": Unary("x > p", np.greater, jumps=True),
    "aten.ge.Scalar": Unary("x >= p", np.greater_equal, jumps=True),
    "aten.mul.Scalar": Unary("x * p", np.multiply),
    "aten.div.Scalar": Unary("x / p", np.divide),
    "aten.leaky_relu.default": Unary("select(x * p, x, x > V(0))", lambda x, slope: np.where(x > 0, x, x * slope)),
    "aten.hardshrink.default": Unary(
        "select(x, V(0), abs(x) <= p)", lambda x, lam: np.where((-lam <= x) & (x <= lam), 0, x), jumps=True
    ),
    "aten.softshrink.default": Unary(
        "select(select(x - x, x - sign(x) * p, abs(x) > p), x, is_nan(x))",
        lambda x, lam: np.where((x < -lam) | (x > lam), x - np.sign(x) * lam, x - x),
        "select(V(0), x - sign(x) * p, abs(x) > p)",
    ),
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

WITH_TWO_SCALARS = {
    "aten.add.Scalar": Unary("x + p * q", lambda x, other, alpha: x + other * alpha),
    "aten.sub.Scalar": Unary("x - p * q", lambda x, other, alpha: x - other * alpha),
    "aten.rsub.Scalar": Unary("p - x * q", lambda x, other, alpha: other - x * alpha),
}


def apply_unary(
    planner: Planner,
    x: Tensor,
    out: Tensor,
    expression: str,
    p: Scalar = 0,
    q: Scalar = 0,
    r: Scalar = 0,
    compute: str | None = None,
) -> None:
    """``out`` = ``expression`` of every element of ``x``; ``compute`` is the WGSL scalar type to do it in."""
    planner.resize(out)
    compute = compute or compute_type([x, out], [p, q, r])
    check_scalars(planner, [p, q, r], compute)
    quads = ceil_div(x.numel, 4)
    planner.dispatch(
        "elementwise/unary",
        planner.grid_1d(quads, WORKGROUP),
        {"input": x, "out": out},
        {"quads": quads, **{name: as_scalar(value, compute) for name, value in zip("pqr", (p, q, r), strict=True)}},
        overrides={"wg_size": WORKGROUP},
        template={"x": x.dtype, "out": out.dtype, "compute": compute, "expression": expression},
    )


def apply_row(planner: Planner, row: Unary, x: Tensor, out: Tensor, *scalars: Scalar) -> None:
    """``out`` = what a row of a table says."""
    compute = compute_type([x, out], list(scalars))
    p, q, r = (*scalars, 0, 0, 0)[:3]
    apply_unary(planner, x, out, row.expression(compute), p, q, r, compute)


def _register_float(name: str, row: Unary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("x",), discontinuous=row.jumps, elementwise=True)
    def plan(planner: Planner, x: Tensor, out: Tensor) -> None:
        planner.check(is_float(out), f"{name}: {out} must have a float dtype")
        apply_row(planner, row, x, out)


def _register_plain(name: str, row: Unary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("x",), discontinuous=row.jumps, elementwise=True)
    def plan(planner: Planner, x: Tensor, out: Tensor) -> None:
        apply_row(planner, row, x, out)


def _register_with_scalar(name: str, row: Unary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("x", "scalar"), discontinuous=row.jumps, elementwise=True)
    def plan(planner: Planner, x: Tensor, scalar: Scalar, out: Tensor) -> None:
        if name in _ORDERS and compute_type([x, out], [scalar]) == "i32" and not INT32_MIN <= scalar <= INT32_MAX:
            holds = _ORDERS[name][scalar > 0]  # no element is as large
            apply_unary(planner, x, out, "x == x" if holds else "x != x")
        elif name in _ORDERS and is_float(x):
            apply_row(planner, row, x, out, stored_as(scalar, x))
        else:
            apply_row(planner, row, x, out, scalar)


def stored_as(value: Scalar, x: Tensor) -> Scalar:
    """A number that is compared with floats: rounded to their dtype, as torch does."""
    with np.errstate(all="ignore"):
        return float(np.asarray(value, np.float64).astype(x.element.numpy))


def _register_with_two_scalars(name: str, row: Unary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("x", "scalar", "alpha"), elementwise=True)
    def plan(planner: Planner, x: Tensor, scalar: Scalar, alpha: Scalar, out: Tensor) -> None:
        apply_row(planner, row, x, out, scalar, alpha)


for _name, _row in FLOAT.items():
    _register_float(_name, _row)
for _name, _row in PLAIN.items():
    _register_plain(_name, _row)
for _name, _row in WITH_SCALAR.items():
    _register_with_scalar(_name, _row)
for _name, _row in WITH_TWO_SCALARS.items():
    _register_with_two_scalars(_name, _row)
