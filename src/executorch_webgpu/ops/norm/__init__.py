"""Normalization over the last dimensions: RMSNorm and LayerNorm, of rows that invocations keep, or of longer ones.

``channels`` has that of channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..reduce.passes import power_of_two
from ..registry import op
from ..rows import Cut, each_row, other_dims
from ..shapes import ceil_div
from ..sizes import Shape, Sizes
from ..values import IntLike, SymInt, Tensor
from . import channels as channels

KEEPING = 256  # invocations that share rows which they keep
KEPT = (4, 16)  # units that an invocation keeps, for longer and longer rows
Array = np.ndarray


def rms_norm_reference(x: Array, weight: Array, eps: float) -> Array:
    """x / sqrt(mean(x²) + eps) * weight over the last dimension."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def layer_norm_reference(
    x: Array, normalized_shape: list[int], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """(normalized x, mean, 1/sqrt(variance + eps)) over the last len(normalized_shape) dimensions."""
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    rstd = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + eps)
    out = (x - mean) * rstd
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, mean, rstd


def rms_norm_sizes(s: Sizes, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Shape:
    s.equate(s.of(x)[-1:], s.of(weight)[-1:])
    return s.of(x)


@op("et_vk.rms_norm.default", reference=rms_norm_reference, sizes=rms_norm_sizes, rows=each_row)
def rms_norm(planner: Planner, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
    """RMSNorm of x [..., N] with weight [N]; float32."""
    tensors = (x, weight, out)
    planner.check(all(t.dtype == "float32" for t in tensors), f"rms_norm takes float32 tensors, not {list(tensors)}")
    width = x.dims[-1] if x.rank else 0
    planner.check(weight.dims == (width,), f"rms_norm: weight {weight} must have the length of the rows of x {x}")
    planner.resize(out)
    if x.numel:
        normalize_rows(planner, x, x.numel // width, weight, eps, out)


def normalize_rows(planner: Planner, x: Binding, rows: int, weight: Tensor, eps: float, out: Binding) -> None:
    """RMSNorm of ``x`` [rows, N] with ``weight`` [N] to ``out`` [rows, N]."""
    bindings: dict[str, Binding] = {"x": x, "weight": weight, "out": out}
    _dispatch(planner, bindings, rows, weight.numel, eps, center=False)


def layer_norm_sizes(s: Sizes, x: Tensor, normalized_shape: list[IntLike], *rest: Any) -> list[Shape]:
    kept = max(0, x.rank - len(normalized_shape))
    stats = s.of(x)[:kept] + (1,) * (x.rank - kept)
    return [s.of(x), stats, stats]


def layer_norm_rows(cut: Cut, x: Tensor, normalized_shape: list[IntLike], *rest: Any) -> int | None:
    return other_dims(cut, x, range(x.rank - len(normalized_shape), x.rank))


@op("aten.native_layer_norm.default", reference=layer_norm_reference, sizes=layer_norm_sizes, rows=layer_norm_rows)
def native_layer_norm(
    planner: Planner,
    x: Tensor,
    normalized_shape: list[IntLike],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    outs: list[Tensor],
) -> None:
    """LayerNorm of x over its last dimensions; float32.

    ``outs`` are the result and, with those dimensions 1, the mean and 1/std.
    """
    shape = planner.values(normalized_shape)
    affine = [t for t in (weight, bias) if t is not None]
    tensors = [x, *affine, *outs]
    planner.check(all(t.dtype == "float32" for t in tensors), f"native_layer_norm takes float32 tensors, not {tensors}")
    planner.check(len(outs) == 3, f"native_layer_norm has three results, not {len(outs)}")
    planner.check(
        0 < len(shape) <= x.rank and x.dims[x.rank - len(shape) :] == shape,
        f"native_layer_norm: x {x} does not end in the normalized shape {list(shape)}",
    )
    planner.check(
        all(t.dims == shape for t in affine),
        f"native_layer_norm: weight and bias must have the normalized shape {list(shape)}, not {affine}",
    )
    out, mean, rstd = outs
    for result in outs:
        planner.resize(result)
    width = math.prod(shape)
    bindings: dict[str, Binding] = {"x": x, "out": out, "mean": mean, "rstd": rstd}
    bindings |= {name: t for name, t in (("weight", weight), ("bias", bias)) if t is not None}
    if x.numel:
        varies = any(isinstance(n, SymInt) for n in normalized_shape)
        _dispatch(planner, bindings, x.numel // width, width, eps, center=True, varies=varies)


def _dispatch(
    planner: Planner,
    bindings: dict[str, Binding],
    rows: int,
    width: int,
    eps: float,
    *,
    center: bool,
    varies: bool = False,
) -> None:
    """Normalize ``rows`` of ``width`` elements; ``varies``: that may be another one next time."""
    template = {"center": center, "weight": "weight" in bindings, "bias": "bias" in bindings}
    unit = 4 if width % 4 == 0 else 1
    length = width // unit
    if varies:
        planner.prepare("norm/norm", template=template)
        for each in ((u, k) for u in (4, 1) for k in KEPT):
            how = template | dict(zip(("unit", "kept"), each, strict=True))
            planner.prepare("norm/kept", template=how, overrides={"wg_size": KEEPING})
    kept = next((k for k in KEPT if length <= k * KEEPING), None)
    if kept is None:
        planner.dispatch(
            "norm/norm",
            planner.grid_1d(rows, 1),  # a workgroup for every row
            bindings,
            {"rows": rows, "width": width, "eps": eps},
            template=template,
        )
        return
    lanes = min(KEEPING, power_of_two(ceil_div(length, kept)))
    planner.dispatch(
        "norm/kept",
        planner.grid_1d(ceil_div(rows * lanes, KEEPING), 1),
        bindings,
        {"rows": rows, "length": length, "lanes": lanes, "eps": eps},
        template=template | {"unit": unit, "kept": kept},
        overrides={"wg_size": KEEPING},
    )
