"""Linear layers that quantize what they read to int8: with one scale, or with a scale for every row.

The rows become what their codes stand for, and are multiplied by the routes of ``matmul``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..matmul import Product, multiply
from ..matmul.formats import Q4GSW, Q8CSW, QuantizedMatrix, channel_matrix, dequantize, grouped_matrix
from ..plan import Binding, Planner
from ..quantize.blocks import Blocks
from ..quantize.numbers import dequantized, inverse, quantized, quantized_by
from ..quantize.plan import Numbers, QParams, fake_quantize
from ..quantize.rows import fake_quantized_rows
from ..registry import Linear, op
from ..rows import Cut, each_row
from ..sizes import Shape, Sizes, packed_linear
from ..values import Tensor

Array = np.ndarray
LOW, HIGH = -128, 127


def _plus(out: Array, bias: Array | None) -> Array:
    return out if bias is None else out + bias.reshape(-1)[: out.shape[-1]]


def _multiply(
    planner: Planner,
    name: str,
    x: Binding,
    m: int,
    matrix: QuantizedMatrix,
    bias: Tensor | None,
    out: Tensor,
    *,
    quantizes: bool = False,
) -> None:
    floats = [out] if bias is None else [bias, out]
    planner.check(all(t.dtype == "float32" for t in floats), f"{name} takes float32, not {floats}")
    planner.check(bias is None or bias.numel >= matrix.rows, f"{name}: bias {bias} must hold {matrix.rows} elements")
    multiply(planner, name, Product(x, m, (matrix,), (bias,), (out,), quantizes=quantizes))


# -- one scale, which the program states ------------------------------------------------------------------------------


def linear_q8ta_q8csw_reference(
    x: Array, scale: float, zero: int, weights: Array, sums: Array, weight_scales: Array, bias: Array | None
) -> Array:
    codes = x if x.dtype.kind == "i" else quantized_by(x, np.float32(inverse(scale)), zero, LOW, HIGH)
    wide = dequantized(codes, np.float32(scale), zero)
    return _plus(wide @ dequantize(Q8CSW, weights, weight_scales[None], weights.shape[1]).T, bias)


@op(
    "et_vk.linear_q8ta_q8csw.default",
    reference=linear_q8ta_q8csw_reference,
    promoted=("x",),
    discontinuous=True,
    sizes=lambda s, x, scale, zero, weights, *rest: packed_linear(s, x, weights),
    rows=each_row,
)
def linear_q8ta_q8csw(
    planner: Planner,
    x: Tensor,
    input_scale: float,
    input_zero_point: int,
    weights: Tensor,
    weight_sums: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None,
    out: Tensor,
) -> None:
    """``out`` [..., N] = ``x`` [..., K] times the transpose of int8 ``weights`` [N, K], plus ``bias``.

    ``x`` holds int8 codes with a scale and a zero point, or floats, which become such codes first. A weight is a code
    times one of ``weight_scales``; these and ``bias`` are float32 [N], or padded to a multiple of 4. What
    ``weight_sums`` say follows from the weights.
    """
    name = "linear_q8ta_q8csw"
    planner.check(x.rank >= 1, f"{name}: {x} must have a dimension of features")
    planner.check(LOW <= input_zero_point <= HIGH, f"{name}: the zero point {input_zero_point} must be an int8 code")
    matrix = channel_matrix(planner, name, Q8CSW, weights, weight_scales, x.dims[-1])
    planner.resize(out)
    rows = fake_quantize(planner, name, x, Numbers(input_scale, input_zero_point))
    _multiply(planner, name, rows, math.prod(x.dims[:-1]), matrix, bias, out)


# -- a scale for every row, which the program computes ----------------------------------------------------------------


def linear_dq8ca_q4gsw_reference(
    x: Array,
    scales: Array,
    zeros: Array,
    weights: Array,
    weight_sums: Array,
    weight_scales: Array,
    group_size: int,
    bias: Array | None,
) -> Array:
    of_rows = (*x.shape[:-1], 1)
    scales, zeros = scales.reshape(of_rows), zeros.reshape(of_rows)
    wide = dequantized(quantized(x, scales, zeros, LOW, HIGH), scales, zeros)
    return _plus(wide @ dequantize(Q4GSW, weights, weight_scales, group_size)[:, : x.shape[-1]].T, bias)


def dynamic_sizes(s: Sizes, x: Tensor, scales: Tensor, zeros: Tensor, weights: Tensor, *rest: Any) -> Shape:
    return packed_linear(s, x, weights)


def dynamic_rows(cut: Cut, x: Tensor, scales: Tensor, zeros: Tensor, *rest: Any) -> int | None:
    """Every row of ``x`` with its scale and its zero point, if these have the dims of the rows."""
    axis = cut.together([x, scales, zeros])
    alike = scales.max_dims == zeros.max_dims == x.max_dims[:-1]
    return axis if axis != x.rank - 1 and alike else None


@op(
    "et_vk.linear_dq8ca_q4gsw.default",
    reference=linear_dq8ca_q4gsw_reference,
    promoted=("x",),
    discontinuous=True,
    sizes=dynamic_sizes,
    rows=dynamic_rows,
)
def linear_dq8ca_q4gsw(
    planner: Planner,
    x: Tensor,
    input_scales: Tensor,
    input_zero_points: Tensor,
    weights: Tensor,
    weight_sums: Tensor,
    weight_scales: Tensor,
    group_size: int,
    bias: Tensor | None,
    out: Tensor,
) -> None:
    """As ``linear_q4gsw`` of what the int8 codes of ``x`` stand for, by a scale and a zero point for every row.

    ``weight_sums`` follow from the weights, and are not read.
    """
    name = "linear_dq8ca_q4gsw"
    planner.check(x.rank >= 1, f"{name}: {x} must have a dimension of features")
    matrix = grouped_matrix(planner, name, Q4GSW, weights, weight_scales, group_size, x.dims[-1])
    planner.resize(out)
    blocks = Blocks(x.dims, (*(1,) * (x.rank - 1), max(x.dims[-1], 1)))
    rows = fake_quantize(planner, name, x, QParams(input_scales, input_zero_points, blocks))
    _multiply(planner, name, rows, math.prod(x.dims[:-1]), matrix, bias, out)


# -- a scale for every row, which the layer computes ----------------------------------------------------------------


def linear_q4gsw_dq8_reference(
    x: Array, weights: Array, weight_scales: Array, group_size: int, bias: Array | None
) -> Array:
    matrix = dequantize(Q4GSW, weights, weight_scales, group_size)[:, : x.shape[-1]]
    return _plus(fake_quantized_rows(x) @ matrix.T, bias)


@op(
    "et_webgpu.linear_q4gsw_dq8.default",
    reference=linear_q4gsw_dq8_reference,
    promoted=("x",),
    discontinuous=True,
    sizes=packed_linear,
    rows=each_row,
    linear=Linear("q4gsw_dq8", "weights", "weight_scales", "group_size", "bias"),
)
def linear_q4gsw_dq8(
    planner: Planner,
    x: Tensor,
    weights: Tensor,
    weight_scales: Tensor,
    group_size: int,
    bias: Tensor | None,
    out: Tensor,
) -> None:
    """As ``linear_dq8ca_q4gsw`` with the scales and zero points that ``choose_qparams_affine`` chooses for its rows."""
    name = "linear_q4gsw_dq8"
    planner.check(x.rank >= 1 and x.dtype == "float32", f"{name}: {x} must have features in float32")
    matrix = grouped_matrix(planner, name, Q4GSW, weights, weight_scales, group_size, x.dims[-1])
    planner.resize(out)
    _multiply(planner, name, x, math.prod(x.dims[:-1]), matrix, bias, out, quantizes=True)
