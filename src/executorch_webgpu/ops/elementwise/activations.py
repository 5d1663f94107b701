"""Activation functions with numbers beside the tensor, each of them one expression."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..values import Tensor
from .element import is_float, quiet
from .unary import Scalar, apply_unary

_erfc = np.vectorize(math.erfc, otypes=[float])

GELU: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    "none": ("gelu_erf(x)", lambda x: 0.5 * x * _erfc(-x / math.sqrt(2))),
    "tanh": (
        "gelu_tanh(x)",
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
}
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
_ELU = "select(q * expm1(r * x), p * x, x > V(0))"


@op(
    "aten.gelu.default",
    reference=quiet(lambda x, approximate: GELU[approximate][1](x)),
    promoted=("x",),
    elementwise=True,
)
def gelu(planner: Planner, x: Tensor, approximate: str, out: Tensor) -> None:
    """GELU; ``approximate`` is "none" (by the error function) or "tanh"."""
    planner.check(approximate in GELU, f"gelu: there is no approximation {approximate!r}")
    planner.check(is_float(out), f"gelu: {out} must have a float dtype")
    apply_unary(planner, x, out, GELU[approximate][0])


def elu_reference(x: np.ndarray, alpha: float, scale: float, input_scale: float) -> Any:
    return np.where(x > 0, scale * x, scale * alpha * np.expm1(input_scale * np.minimum(x, 0)))


@op("aten.elu.default", reference=quiet(elu_reference), promoted=("x",), elementwise=True)
def elu(planner: Planner, x: Tensor, alpha: Scalar, scale: Scalar, input_scale: Scalar, out: Tensor) -> None:
    """``scale`` times ``x``, or times ``alpha * (exp(input_scale * x) - 1)`` where ``x`` is not positive."""
    planner.check(is_float(out), f"elu: {out} must have a float dtype")
    apply_unary(planner, x, out, _ELU, scale, scale * alpha, input_scale, "f32")


@op("aten.celu.default", reference=quiet(lambda x, a: elu_reference(x, a, 1, 1 / a)), promoted=("x",), elementwise=True)
def celu(planner: Planner, x: Tensor, alpha: Scalar, out: Tensor) -> None:
    """``x``, or ``alpha * (exp(x / alpha) - 1)`` where it is not positive."""
    planner.check(is_float(out), f"celu: {out} must have a float dtype")
    planner.check(alpha != 0, "celu: alpha must not be 0")
    apply_unary(planner, x, out, _ELU, 1, alpha, 1 / alpha, "f32")


@op(
    "aten.selu.default",
    reference=quiet(lambda x: elu_reference(x, SELU_ALPHA, SELU_SCALE, 1)),
    promoted=("x",),
    elementwise=True,
)
def selu(planner: Planner, x: Tensor, out: Tensor) -> None:
    """ELU with the constants that keep mean and variance."""
    planner.check(is_float(out), f"selu: {out} must have a float dtype")
    apply_unary(planner, x, out, _ELU, SELU_SCALE, SELU_SCALE * SELU_ALPHA, 1, "f32")


def softplus_reference(x: np.ndarray, beta: float, threshold: float) -> Any:
    return np.where(x * beta > threshold, x, np.logaddexp(x * beta, 0) / beta)


@op("aten.softplus.default", reference=quiet(softplus_reference), promoted=("x",), elementwise=True)
def softplus(planner: Planner, x: Tensor, beta: Scalar, threshold: Scalar, out: Tensor) -> None:
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x`` is above ``threshold``."""
    planner.check(is_float(out), f"softplus: {out} must have a float dtype")
    apply_unary(planner, x, out, "select(softplus(x * p) / p, x, x * p > q)", beta, threshold, compute="f32")


@op(
    "aten.threshold.default",
    reference=lambda x, threshold, value: np.where(x <= threshold, value, x),
    promoted=("x", "threshold", "value"),
    discontinuous=True,
    elementwise=True,
)
def threshold(planner: Planner, x: Tensor, threshold: Scalar, value: Scalar, out: Tensor) -> None:
    """``x`` where it is above ``threshold``, or NaN, and else ``value``."""
    apply_unary(planner, x, out, "select(x, q, x <= p)", threshold, value)


def logit_reference(x: np.ndarray, eps: float | None) -> Any:
    bounded = x if eps is None else np.clip(x, eps, 1 - eps)
    return np.log(bounded / (1 - bounded))


@op("aten.logit.default", reference=quiet(logit_reference), promoted=("x",), elementwise=True)
def logit(planner: Planner, x: Tensor, eps: float | None, out: Tensor) -> None:
    """``log(x / (1 - x))`` of ``x``, or of ``x`` held between ``eps`` and ``1 - eps``."""
    planner.check(is_float(out), f"logit: {out} must have a float dtype")
    low, high = (-math.inf, math.inf) if eps is None else (eps, 1 - eps)
    bounded = "keep_nan(x, min(max(x, p), q))"
    apply_unary(planner, x, out, f"logarithm({bounded} / (1.0 - {bounded}))", low, high, compute="f32")


def _limits(name: str) -> float:
    """The largest finite number of a float dtype."""
    return {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}.get(name, float(np.finfo(np.float32).max))


def nan_to_num_reference(x: np.ndarray, nan: float | None, posinf: float | None, neginf: float | None) -> Any:
    most = _limits(x.dtype.name)
    top, bottom = most if posinf is None else posinf, -most if neginf is None else neginf
    return np.nan_to_num(x, nan=0.0 if nan is None else nan, posinf=top, neginf=bottom)


@op("aten.nan_to_num.default", reference=nan_to_num_reference, promoted=("x",), elementwise=True)
def nan_to_num(
    planner: Planner, x: Tensor, nan: float | None, posinf: float | None, neginf: float | None, out: Tensor
) -> None:
    """``x`` with numbers for NaN (0 if None) and for infinities (the largest numbers of the dtype if None)."""
    if not is_float(x):
        apply_unary(planner, x, out, "x")
        return
    most = _limits(out.dtype)
    numbers = (0.0 if nan is None else nan, most if posinf is None else posinf, -most if neginf is None else neginf)
    expression = "select(select(x, select(r, q, x > V(0)), is_infinite(x)), p, is_nan(x))"
    apply_unary(planner, x, out, expression, *numbers, compute="f32")


@op(
    "aten.round.decimals",
    reference=quiet(lambda x, decimals: np.round(x, decimals) if x.dtype.kind == "f" else x),
    promoted=("x",),
    discontinuous=True,
    elementwise=True,
)
def round_decimals(planner: Planner, x: Tensor, decimals: int, out: Tensor) -> None:
    """``x`` rounded to ``decimals`` digits behind the point, before it if negative; halves to even digits."""
    planner.check(is_float(x), f"round: {x} must have a float dtype")
    planner.check(abs(decimals) <= 38, f"round: {decimals} decimals are more than float32 has")
    ten = 10.0 ** abs(decimals)
    expression = "select(round(x * p) / p, x, is_infinite(x))" if decimals >= 0 else "round(x / p) * p"
    apply_unary(planner, x, out, expression, ten)
