"""Linear layers with quantized weights, in every format, by the routes of ``matmul``."""

from __future__ import annotations

import math

import numpy as np

from ..matmul import Product, multiply
from ..matmul.formats import (
    Q4CSW,
    Q4GAW,
    Q4GSW,
    Q8CSW,
    Q8GSW,
    QuantizedMatrix,
    WeightFormat,
    channel_matrix,
    dequantize,
    grouped_matrix,
)
from ..plan import Planner
from ..registry import Linear, op
from ..rows import each_row
from ..sizes import linear, packed_linear
from ..values import Tensor
from . import activations

__all__ = ["activations"]


def _product(
    x: np.ndarray,
    layout: WeightFormat,
    weights: np.ndarray,
    scales: np.ndarray,
    group_size: int,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    out = x @ dequantize(layout, weights, scales, group_size)[:, : x.shape[-1]].T
    return out if bias is None else out + bias[: len(weights)]


def linear_q4gsw_reference(
    x: np.ndarray, weights: np.ndarray, scales: np.ndarray, group_size: int, bias: np.ndarray | None
) -> np.ndarray:
    return _product(x, Q4GSW, weights, scales, group_size, bias)


@op(
    "et_vk.linear_q4gsw.default",
    reference=linear_q4gsw_reference,
    sizes=packed_linear,
    rows=each_row,
    linear=Linear("q4gsw", "weights", "scales", "group_size", "bias"),
)
def linear_q4gsw(
    planner: Planner, x: Tensor, weights: Tensor, scales: Tensor, group_size: int, bias: Tensor | None, out: Tensor
) -> None:
    """``out`` [..., N] = ``x`` [..., K] times the transpose of the dequantized ``weights``, plus ``bias``.

    ``weights`` [N, B] uint8 holds two weights a byte, the even one in the low nibble, each with 8 added;
    B is a multiple of 4 and at least K/2. ``scales`` [ceil(K / group_size), S] with S >= N a multiple of 4;
    ``group_size`` is a multiple of 8, or at least K. ``bias`` holds at least N elements. All but the weights
    are float32. Anything else is refused with UnsupportedProgramError.
    """
    _grouped(planner, "linear_q4gsw", Q4GSW, x, weights, scales, group_size, bias, out)


def linear_q4gaw_reference(
    x: np.ndarray, weights: np.ndarray, scales_and_mins: np.ndarray, group_size: int, bias: np.ndarray | None
) -> np.ndarray:
    return _product(x, Q4GAW, weights, scales_and_mins, group_size, bias)


@op(
    "et_webgpu.linear_q4gaw.default",
    reference=linear_q4gaw_reference,
    sizes=packed_linear,
    rows=each_row,
    linear=Linear("q4gaw", "weights", "scales_and_mins", "group_size", "bias"),
)
def linear_q4gaw(
    planner: Planner,
    x: Tensor,
    weights: Tensor,
    scales_and_mins: Tensor,
    group_size: int,
    bias: Tensor | None,
    out: Tensor,
) -> None:
    """Like ``linear_q4gsw``, with weights ``code * scale + min``: the blocks of GGUF's Q4_0 and Q4_1, unchanged.

    ``weights`` [N, B] uint8 holds two codes of 0 to 15 a byte, the even one in the low nibble.
    ``scales_and_mins`` [ceil(K / group_size), S, 2] float16: the scale, then the minimum.
    """
    _grouped(planner, "linear_q4gaw", Q4GAW, x, weights, scales_and_mins, group_size, bias, out)


def linear_q8gsw_reference(
    x: np.ndarray, weights: np.ndarray, scales: np.ndarray, group_size: int, bias: np.ndarray | None
) -> np.ndarray:
    return _product(x, Q8GSW, weights, scales, group_size, bias)


@op(
    "et_webgpu.linear_q8gsw.default",
    reference=linear_q8gsw_reference,
    sizes=packed_linear,
    rows=each_row,
    linear=Linear("q8gsw", "weights", "scales", "group_size", "bias"),
)
def linear_q8gsw(
    planner: Planner, x: Tensor, weights: Tensor, scales: Tensor, group_size: int, bias: Tensor | None, out: Tensor
) -> None:
    """Like ``linear_q4gsw``, with 8-bit weights: the blocks of GGUF's Q8_0, unchanged.

    ``weights`` [N, B] int8, with B a multiple of 4 and at least K; ``group_size`` is a multiple of 4, or at least K.
    ``scales`` [ceil(K / group_size), S] float16.
    """
    _grouped(planner, "linear_q8gsw", Q8GSW, x, weights, scales, group_size, bias, out)


def weight_int8pack_mm_reference(x: np.ndarray, weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return _product(x, Q8CSW, weights, scales[None], weights.shape[1])


@op(
    "aten._weight_int8pack_mm.default",
    reference=weight_int8pack_mm_reference,
    sizes=linear,
    rows=each_row,
    linear=Linear("q8csw", "weights", "scales"),
)
def weight_int8pack_mm(planner: Planner, x: Tensor, weights: Tensor, scales: Tensor, out: Tensor) -> None:
    """``out`` [..., N] = ``x`` [..., K] times the transpose of ``weights`` [N, K] int8, times ``scales`` [N].

    All but the weights are float32. K may be any number; rows of whole words (K a multiple of 4) are faster.
    """
    name = "weight_int8pack_mm"
    planner.check(x.rank >= 1, f"{name}: {x} must have a dimension of features")
    _linear(planner, name, x, channel_matrix(planner, name, Q8CSW, weights, scales, x.dims[-1]), None, out)


def linear_qcs4w_reference(x: np.ndarray, weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return _product(x, Q4CSW, weights, scales[None], x.shape[-1])


@op(
    "et_vk.linear_qcs4w.default",
    reference=linear_qcs4w_reference,
    sizes=packed_linear,
    rows=each_row,
    linear=Linear("q4csw", "weights", "scales"),
)
def linear_qcs4w(planner: Planner, x: Tensor, weights: Tensor, scales: Tensor, out: Tensor) -> None:
    """``out`` [..., N] = ``x`` [..., K] times the transpose of 4-bit ``weights``, times ``scales`` [N].

    ``weights`` [N, ceil(K / 2)] uint8 holds two weights a byte, the even one in the high nibble, each with 8 added. The
    exporter packs them so; its eager stand-in does not subtract the 8. All but the weights are float32.
    """
    name = "linear_qcs4w"
    planner.check(x.rank >= 1, f"{name}: {x} must have a dimension of features")
    _linear(planner, name, x, channel_matrix(planner, name, Q4CSW, weights, scales, x.dims[-1]), None, out)


def _grouped(
    planner: Planner,
    name: str,
    layout: WeightFormat,
    x: Tensor,
    weights: Tensor,
    scales: Tensor,
    group_size: int,
    bias: Tensor | None,
    out: Tensor,
) -> None:
    planner.check(x.rank >= 1, f"{name}: {x} must have a dimension of features")
    matrix = grouped_matrix(planner, name, layout, weights, scales, group_size, x.dims[-1])
    _linear(planner, name, x, matrix, bias, out)


def _linear(planner: Planner, name: str, x: Tensor, matrix: QuantizedMatrix, bias: Tensor | None, out: Tensor) -> None:
    floats = [t for t in (x, bias, out) if t is not None]
    planner.check(all(t.dtype == "float32" for t in floats), f"{name} takes float32, not {floats}")
    planner.check(bias is None or bias.numel >= matrix.rows, f"{name}: bias {bias} must hold {matrix.rows} elements")
    planner.resize(out)
    multiply(planner, name, Product(x, math.prod(x.dims[:-1]), (matrix,), (bias,), (out,)))
