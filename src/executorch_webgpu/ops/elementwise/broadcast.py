"""Elementwise operators of several tensors that broadcast: one kernel for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..plan import Planner
from ..reindex.strided import MAX_RANK, coalesce, innermost_first
from ..shapes import broadcast, broadcast_strides, ceil_div
from ..values import Dims, Tensor
from .element import WORKGROUP, as_scalar, check_scalars, compute_type

NAMES = ("a", "b", "c")
KERNEL = "elementwise/broadcast"
OVERRIDES = {"wg_size": WORKGROUP}


@dataclass(frozen=True)
class Expression:
    """WGSL in the vec4s ``a``, ``b``, ``c`` and ``p``, which is a number.

    ``compute`` is the WGSL type to do it in, by default that of the operands; "u32": elements as they are stored.
    """

    wgsl: str
    p: int | float = 0
    compute: str | None = None


@dataclass(frozen=True)
class View:
    """Which element of ``tensor`` meets each element of the output: strides in elements, 0 where it is repeated."""

    tensor: Tensor
    strides: Dims
    base: int = 0


def apply_broadcast(planner: Planner, operands: Sequence[Tensor], out: Tensor, expression: Expression) -> None:
    """``out`` = ``expression`` of two or three tensors."""
    planner.check(
        None not in broadcast(*(t.dims for t in operands)),
        f"the shapes of {_listed(operands)} do not broadcast to a common one",
    )
    planner.resize(out)
    if all(t.dims == out.dims and t.max_dims == out.max_dims for t in operands):
        _dispatch(planner, operands, out, expression, "equal", {})
        return
    views = [View(t, broadcast_strides(t.dims, out.dims)) for t in operands]
    broadcasts = broadcast(*(t.max_dims for t in operands)) == out.max_dims
    at_most = [View(t, broadcast_strides(t.max_dims, out.max_dims)) for t in operands] if broadcasts else []
    dispatch_views(planner, views, out, expression, at_most)


def dispatch_views(
    planner: Planner, views: Sequence[View], out: Tensor, expression: Expression, at_most: Sequence[View] = ()
) -> None:
    """``out``, which has its live dims, = ``expression`` of views of two or three tensors.

    ``at_most`` are the views at maximum dims, which say whether a route for whole quads is made at load.
    """
    operands = [v.tensor for v in views]
    shape, strides = coalesce(out.dims, *(v.strides for v in views))
    planner.check(
        len(shape) <= MAX_RANK,
        f"broadcasting {_listed(operands)} takes {len(shape)} dimensions; at most {MAX_RANK} work",
    )
    params: dict[str, Any] = {
        "rank": len(shape),
        "dims": innermost_first(shape, 1),
        "bases": [*(v.base for v in views), *(0,) * (4 - len(views))],
        **{f"{name}_strides": innermost_first(s, 0) for name, s in zip(NAMES, strides, strict=False)},
    }
    has_quads = bool(at_most) and in_quads(out.max_dims, at_most)
    if has_quads:
        planner.prepare(KERNEL, template=_template(operands, out, expression, "any"), overrides=OVERRIDES)
    places = "quads" if has_quads and in_quads(out.dims, views) else "any"
    _dispatch(planner, operands, out, expression, places, params)


def in_quads(dims: Dims, views: Sequence[View]) -> bool:
    """Whether any four elements of the output in a row meet an aligned quad of every view, or one element of it."""
    shape, strides = coalesce(dims, *(v.strides for v in views))
    if len(shape) <= 1 and not any(v.base for v in views):
        return True  # past the end, buffers are padded
    return (
        len(shape) > 0
        and shape[-1] % 4 == 0
        and all(
            s[-1] == 0 or (s[-1] == 1 and not any(n % 4 for n in (*s[:-1], v.base)))
            for v, s in zip(views, strides, strict=True)
        )
    )


def _dispatch(
    planner: Planner,
    operands: Sequence[Tensor],
    out: Tensor,
    expression: Expression,
    places: str,
    params: dict[str, Any],
) -> None:
    template = _template(operands, out, expression, places)
    check_scalars(planner, [expression.p], template["compute"])
    planner.dispatch(
        KERNEL,
        planner.grid_1d(ceil_div(out.numel, 4), WORKGROUP),
        {"out": out, **{f"{name}_data": t for name, t in zip(NAMES, operands, strict=False)}},
        {"n": out.numel, "p": as_scalar(expression.p, template["compute"]), **params},
        overrides=OVERRIDES,
        template=template,
    )


def _template(operands: Sequence[Tensor], out: Tensor, expression: Expression, places: str) -> dict[str, Any]:
    return {
        "dtypes": tuple(t.dtype for t in operands),
        "out": out.dtype,
        "compute": expression.compute or compute_type([*operands, out], [expression.p]),
        "expression": expression.wgsl,
        "places": places,
    }


def _listed(tensors: Sequence[Tensor]) -> str:
    return ", ".join(map(str, tensors[:-1])) + f" and {tensors[-1]}"
