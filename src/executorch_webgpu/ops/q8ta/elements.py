"""Element by element on int8 tensors: sums, ReLU and pixel shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..quantize.numbers import Array
from ..registry import op
from ..reindex.strided import MAX_RANK, coalesce, innermost_first
from ..rows import Cut
from ..shapes import broadcast, broadcast_strides, ceil_div, row_major_strides
from ..sizes import Found, Sizes, quotient
from ..values import Dims, Tensor
from .numbers import Quantized, check_int8

WORKGROUP = 64


def _run(
    planner: Planner,
    inputs: Sequence[tuple[Tensor, Quantized, Dims]],
    index_dims: Dims,
    out: Tensor,
    parameters: Quantized,
    *,
    alpha: float = 1.0,
    relu: bool = False,
) -> None:
    """``inputs`` are one tensor or two, with their strides over ``index_dims``, the elements of ``out`` in order."""
    dims, strides = coalesce(index_dims, *(s for _, _, s in inputs))
    planner.check(len(dims) <= MAX_RANK, f"{out} takes {len(dims)} dimensions; at most {MAX_RANK} work")
    plain = all(step == row_major_strides(dims) for step in strides)
    template: dict[str, Any] = {"op": "move" if len(inputs) == 1 else "add", "relu": relu}
    params: dict[str, Any] = {"n": out.numel, "out_factor": parameters.factor, "out_zero": parameters.zero}
    for name, (_, given, _), steps in zip("ab", inputs, strides, strict=False):
        params |= {f"{name}_scale": given.scale, f"{name}_zero": given.zero}
        if not plain:
            params[f"{name}_strides"] = innermost_first(steps, 0)
    if len(inputs) == 2:
        params["alpha"] = alpha
    if not plain:
        params |= {"rank": len(dims), "dims": innermost_first(dims, 1)}
    overrides = {"wg_size": WORKGROUP}
    for strided in (False, True):  # live sizes decide
        planner.prepare("q8ta/elements", template={**template, "strided": strided}, overrides=overrides)
    planner.dispatch(
        "q8ta/elements",
        planner.grid_1d(ceil_div(out.numel, 4), WORKGROUP),
        {**{name: x for name, (x, _, _) in zip("ab", inputs, strict=False)}, "out": out},
        params,
        overrides=overrides,
        template={**template, "strided": not plain},
    )


def q8ta_add_reference(
    a: Array,
    b: Array,
    a_scale: float,
    a_zero: int,
    b_scale: float,
    b_zero: int,
    out_scale: float,
    out_zero: int,
    alpha: float,
) -> Array:
    scaled = np.float32(alpha) * Quantized(b_scale, b_zero).numbers(b)
    return Quantized(out_scale, out_zero).codes(Quantized(a_scale, a_zero).numbers(a) + scaled)


@op("et_vk.q8ta_add.default", reference=q8ta_add_reference, elementwise=True)
def q8ta_add(
    planner: Planner,
    a: Tensor,
    b: Tensor,
    a_scale: float,
    a_zero: int,
    b_scale: float,
    b_zero: int,
    out_scale: float,
    out_zero: int,
    alpha: float,
    out: Tensor,
) -> None:
    """The codes of ``a + alpha * b``, where all are int8 with a scale and a zero point each, and broadcast."""
    parameters = Quantized(out_scale, out_zero)
    given = [Quantized(a_scale, a_zero), Quantized(b_scale, b_zero)]
    check_int8(planner, "q8ta_add", [a, b, out], [*given, parameters])
    planner.check(None not in broadcast(a.dims, b.dims), f"the shapes of {a} and {b} do not broadcast to a common one")
    planner.resize(out)
    inputs = [(x, p, broadcast_strides(x.dims, out.dims)) for x, p in zip((a, b), given, strict=True)]
    _run(planner, inputs, out.dims, out, parameters, alpha=alpha)


def q8ta_relu_reference(x: Array, scale: float, zero: int, out_scale: float, out_zero: int) -> Array:
    return Quantized(out_scale, out_zero).codes(Quantized(scale, zero).numbers(x), relu=True)


@op("et_vk.q8ta_relu.default", reference=q8ta_relu_reference, elementwise=True)
def q8ta_relu(
    planner: Planner, x: Tensor, scale: float, zero: int, out_scale: float, out_zero: int, out: Tensor
) -> None:
    """The codes of ``x``, or of 0 where it is negative; int8, with other parameters than those of ``x``."""
    given, parameters = Quantized(scale, zero), Quantized(out_scale, out_zero)
    check_int8(planner, "q8ta_relu", [x, out], [given, parameters])
    planner.resize(out)
    _run(planner, [(x, given, row_major_strides(x.dims))], x.dims, out, parameters, relu=True)


def _shuffled(dims: Sequence[Any], factor: int, channels: Any) -> tuple[Any, ...]:
    *batch, _, height, width = dims
    return (*batch, channels, height * factor, width * factor)


def shuffle_sizes(
    s: Sizes, x: Tensor, scale: float, zero: int, inverse_scale: float, out_zero: int, factor: int, out: Tensor
) -> Found | None:
    dims = s.of(x)
    if len(dims) < 3 or factor < 1:
        return None
    *batch, channels, height, width = dims
    return (*batch, quotient((channels,), (factor, factor)), *(quotient((n, factor), ()) for n in (height, width)))


def shuffle_rows(cut: Cut, x: Tensor, *_: Any) -> int | None:
    """Images of a batch; rows and columns of one are several of the output."""
    axis = cut.only(x)
    return axis if axis is not None and axis < x.rank - 3 else None


def q8ta_pixel_shuffle_reference(
    x: Array, scale: float, zero: int, inverse_scale: float, out_zero: int, factor: int
) -> Array:
    *batch, channels, height, width = x.shape
    split = x.reshape(*batch, channels // factor**2, factor, factor, height, width)
    first = len(batch)
    moved = split.transpose(*range(first + 1), first + 3, first + 1, first + 4, first + 2)
    shuffled = moved.reshape(_shuffled(x.shape, factor, channels // factor**2))
    return Quantized(1 / inverse_scale, out_zero).codes(Quantized(scale, zero).numbers(shuffled))


@op(
    "et_vk.q8ta_pixel_shuffle.default",
    reference=q8ta_pixel_shuffle_reference,
    sizes=shuffle_sizes,
    rows=shuffle_rows,
)
def q8ta_pixel_shuffle(
    planner: Planner,
    x: Tensor,
    scale: float,
    zero: int,
    output_inv_scale: float,
    out_zero: int,
    upscale_factor: int,
    out: Tensor,
) -> None:
    """[..., C * r * r, H, W] as [..., C, H * r, W * r], int8, with other parameters than those of ``x``."""
    r = upscale_factor
    planner.check(
        x.rank >= 3 and r >= 1 and x.dims[-3] % (r * r) == 0 and output_inv_scale > 0,
        f"q8ta_pixel_shuffle: the channels of {x} must be a multiple of {r} * {r}",
    )
    given, parameters = Quantized(scale, zero), Quantized(1 / output_inv_scale, out_zero)
    check_int8(planner, "q8ta_pixel_shuffle", [x, out], [given, parameters])
    *batch, channels, height, width = x.dims
    planner.resize(out, _shuffled(x.dims, r, channels // (r * r)))
    split = (*batch, channels // (r * r), r, r, height, width)
    *outer, row, column, y, across = row_major_strides(split)
    index_dims = (*batch, channels // (r * r), height, r, width, r)
    _run(planner, [(x, given, (*outer, y, row, across, column))], index_dims, out, parameters)
