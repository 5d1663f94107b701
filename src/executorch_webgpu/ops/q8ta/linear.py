"""Linear layers of int8 codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..plan import Planner
from ..quantize.numbers import Array
from ..registry import op
from ..rows import each_row
from ..sizes import packed_linear
from ..values import Tensor
from .numbers import Quantized
from .products import Products, Weights, check, finished, run
from .window import POINT


def q8ta_linear_sizes(s: Any, x: Tensor, scale: float, zero: int, weights: Tensor, *rest: Any) -> Any:
    return packed_linear(s, x, weights)


def q8ta_linear_reference(
    x: Array,
    scale: float,
    zero: int,
    weights: Array,
    weight_sums: Array,
    scales: Array,
    out_scale: float,
    out_zero: int,
    bias: Array | None,
    activation: str,
) -> Array:
    given, out = Quantized(scale, zero), Quantized(out_scale, out_zero)
    n = len(weights)
    exact = (x.astype(np.float64) - zero) @ weights[:, : x.shape[-1]].astype(np.float64).T
    added = None if bias is None else bias.reshape(-1)[:n]
    return finished(exact, scales.reshape(-1)[:n], added, given, out, activation == "relu")


@op(
    "et_vk.q8ta_linear.default",
    "et_vk.q8ta_linear_gemv.default",
    reference=q8ta_linear_reference,
    sizes=q8ta_linear_sizes,
    rows=each_row,
)
def q8ta_linear(
    planner: Planner,
    x: Tensor,
    input_scale: float,
    input_zero_point: int,
    weights: Tensor,
    weight_sums: Tensor,
    weight_scales: Tensor,
    output_scale: float,
    output_zero_point: int,
    bias: Tensor | None,
    activation: str,
    out: Tensor,
) -> None:
    """``out`` [..., N] int8 of ``x`` [..., K] int8 times the transpose of ``weights`` [N, K] int8, plus ``bias``.

    Sums of codes are exact. ``weight_scales`` and ``bias`` are float32, and at least N; rows of ``weights`` may be
    longer than K. ``activation`` is "none" or "relu". ``weight_sums`` follow from the weights, and are not read.
    """
    name = "q8ta_linear"
    planner.check(x.rank >= 1 and weights.rank == 2, f"{name}: {weights} must be a matrix, and {x} have features")
    n, row = weights.dims
    k = x.dims[-1]
    planner.check(k <= row, f"{name}: rows of {weights} must hold the {k} features of {x}")
    planner.resize(out)
    held = Weights(weights, n, 1, k, row, row, 1)
    given = Quantized(input_scale, input_zero_point), Quantized(output_scale, output_zero_point)
    m = math.prod(x.dims[:-1])
    point = (1, 1)
    products = Products(x, out, m, point, point, held, 1, POINT, weight_scales, n, bias, *given, activation == "relu")
    check(planner, name, products, activation)
    run(planner, name, products)
