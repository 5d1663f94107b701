"""Binary operators with broadcasting: one table, one kernel template. A new operator is a new row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.strided import MAX_RANK, coalesce, innermost_first
from ..shapes import broadcast, broadcast_strides, ceil_div
from ..values import Tensor
from .element import WORKGROUP, as_scalar, check_scalars, compute_type, is_float, quiet


@dataclass(frozen=True)
class Binary:
    """``wgsl`` is an expression in the vec4s ``a`` and ``b``: numbers, or bools where the output is bool."""

    wgsl: str
    reference: Callable[..., Any]


# WGSL leaves min and max of a NaN open, and naga makes != an ordered comparison, false for a NaN. So a NaN is
# what !(x == x) holds for; min and max keep it, and it is unequal to everything.
BINARY = {
    "aten.mul.Tensor": Binary("a * b", np.multiply),
    "aten.div.Tensor": Binary("a / b", np.divide),
    "aten.minimum.default": Binary("select(min(a, b), a + b, !(a == a) | !(b == b))", np.minimum),
    "aten.maximum.default": Binary("select(max(a, b), a + b, !(a == a) | !(b == b))", np.maximum),
    "aten.eq.Tensor": Binary("a == b", np.equal),
    "aten.ne.Tensor": Binary("!(a == b)", np.not_equal),
    "aten.lt.Tensor": Binary("a < b", np.less),
    "aten.le.Tensor": Binary("a <= b", np.less_equal),
    "aten.gt.Tensor": Binary("a > b", np.greater),
    "aten.ge.Tensor": Binary("a >= b", np.greater_equal),
    "aten.logical_and.default": Binary("!(a == V(0)) & !(b == V(0))", np.logical_and),
    "aten.logical_or.default": Binary("!(a == V(0)) | !(b == V(0))", np.logical_or),
    "aten.logical_xor.default": Binary("(a == V(0)) != (b == V(0))", np.logical_xor),
}

BITWISE = {
    "aten.bitwise_and.Tensor": Binary("a & b", np.bitwise_and),
    "aten.bitwise_or.Tensor": Binary("a | b", np.bitwise_or),
    "aten.bitwise_xor.Tensor": Binary("a ^ b", np.bitwise_xor),
}

# These take a factor for b as a third argument.
WITH_ALPHA = {
    "aten.add.Tensor": Binary("a + alpha * b", lambda a, b, alpha: a + alpha * b),
    "aten.sub.Tensor": Binary("a - alpha * b", lambda a, b, alpha: a - alpha * b),
}


def _whole_quotient(a: np.ndarray, b: np.ndarray, *, down: bool) -> Any:
    """a / b, rounded down or else towards zero: of floats in their own precision, of integers exactly.

    Raises ZeroDivisionError when an integer is divided by 0.
    """
    if np.result_type(a, b).kind == "f":
        return np.floor_divide(a, b) if down else np.trunc(np.divide(a, b))
    if not np.all(b):
        raise ZeroDivisionError("an integer is divided by 0")
    quotient = np.floor_divide(a, b)
    if down:
        return quotient
    return quotient + ((quotient < 0) & (quotient * b != a))


# How div.Tensor_mode rounds: the f32 expression, the i32 one, and the reference.
DIVISIONS: dict[str | None, tuple[str, str, Callable[..., Any]]] = {
    None: ("a / b", "a / b", np.divide),
    "floor": ("floor_quotient(a, b)", "floor_quotient_i32(a, b)", partial(_whole_quotient, down=True)),
    "trunc": ("trunc_quotient(a, b)", "a / b", partial(_whole_quotient, down=False)),
}
_DISCONTINUOUS = frozenset(f"aten.{name}.Tensor" for name in ("eq", "ne", "lt", "le", "gt", "ge"))


def apply_binary(
    planner: Planner,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    expression: str,
    alpha: int | float = 1,
    compute: str | None = None,
) -> None:
    """``out`` = ``expression`` of ``a`` and ``b``, broadcast; ``compute`` is the WGSL type to do it in."""
    planner.check(None not in broadcast(a.dims, b.dims), f"the shapes of {a} and {b} do not broadcast to a common one")
    planner.resize(out)
    compute = compute or compute_type([a, b], [alpha])
    check_scalars(planner, [alpha], compute)
    template = {"a": a.dtype, "b": b.dtype, "out": out.dtype, "compute": compute, "expression": expression}
    params: dict[str, Any] = {"n": out.numel, "alpha": as_scalar(alpha, compute)}
    spread = a.dims != b.dims
    if spread:
        shape, (a_strides, b_strides) = coalesce(out.dims, *(broadcast_strides(t.dims, out.dims) for t in (a, b)))
        planner.check(
            len(shape) <= MAX_RANK,
            f"broadcasting {a} with {b} takes {len(shape)} dimensions; at most {MAX_RANK} work",
        )
        params |= {
            "rank": len(shape),
            "dims": innermost_first(shape, 1),
            "a_strides": innermost_first(a_strides, 0),
            "b_strides": innermost_first(b_strides, 0),
        }
    overrides = {"wg_size": WORKGROUP}
    if a.max_dims != b.max_dims:  # live dims may be equal where the maximum ones are not
        planner.prepare("elementwise/binary", template={**template, "broadcast": not spread}, overrides=overrides)
    planner.dispatch(
        "elementwise/binary",
        planner.grid_1d(ceil_div(out.numel, 4), WORKGROUP),
        {"left": a, "right": b, "out": out},
        params,
        overrides=overrides,
        template={**template, "broadcast": spread},
    )


def _register(name: str, row: Binary) -> None:
    @op(
        name,
        reference=quiet(row.reference),
        promoted=("a", "b"),
        discontinuous=name in _DISCONTINUOUS,
        elementwise=True,
    )
    def plan(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
        # A float result of integers, as of div.Tensor, is computed in floats.
        apply_binary(planner, a, b, out, row.wgsl, compute=compute_type([a, b, out], []))


def _register_bitwise(name: str, row: Binary) -> None:
    @op(name, reference=row.reference, promoted=("a", "b"), elementwise=True)
    def plan(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
        planner.check(not is_float(a) and not is_float(b), f"{name}: {a} and {b} must hold integers or bools")
        apply_binary(planner, a, b, out, row.wgsl)


def _register_with_alpha(name: str, row: Binary) -> None:
    @op(name, reference=quiet(row.reference), promoted=("a", "b", "alpha"), elementwise=True)
    def plan(planner: Planner, a: Tensor, b: Tensor, alpha: int | float, out: Tensor) -> None:
        apply_binary(planner, a, b, out, row.wgsl, alpha)


for _name, _row in BINARY.items():
    _register(_name, _row)
for _name, _row in BITWISE.items():
    _register_bitwise(_name, _row)
for _name, _row in WITH_ALPHA.items():
    _register_with_alpha(_name, _row)


@op(
    "aten.div.Tensor_mode",
    reference=quiet(lambda a, b, mode: DIVISIONS[mode][2](a, b)),
    promoted=("a", "b"),
    discontinuous=True,
    elementwise=True,
)
def div_mode(planner: Planner, a: Tensor, b: Tensor, mode: str | None, out: Tensor) -> None:
    """``a / b``, rounded as ``mode`` says: None, "floor" or "trunc"."""
    planner.check(mode in DIVISIONS, f"div.Tensor_mode: there is no rounding mode {mode!r}")
    compute = compute_type([a, b, out], [])
    of_floats, of_integers, _ = DIVISIONS[mode]
    apply_binary(planner, a, b, out, of_floats if compute == "f32" else of_integers, compute=compute)


@op("aten.pow.Tensor_Tensor", reference=quiet(np.power), promoted=("a", "b"), elementwise=True)
def pow_tensor(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
    """``a`` to the power of ``b``, of floats: NaN for a negative base and a fractional exponent."""
    planner.check(is_float(out), f"pow: {out} must have a float dtype")
    apply_binary(planner, a, b, out, "power(a, b)", compute="f32")
