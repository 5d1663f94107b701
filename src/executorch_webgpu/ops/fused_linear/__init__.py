"""Linear layers with what surrounds them: RMSNorm before, several matrices at once, gates and residuals after.

No program states this operator: graph passes put it in the place of several calls.
"""

from __future__ import annotations

import math
from functools import wraps
from itertools import zip_longest
from typing import Any

import numpy as np

from ..matmul import Norm, Product, multiply
from ..matmul.formats import (
    Q4CSW,
    Q4GAW,
    Q4GSW,
    Q8CSW,
    Q8GSW,
    WeightFormat,
    channel_matrix,
    dequantize,
    grouped_matrix,
)
from ..matmul.packed import Matrix, rows_of
from ..norm import rms_norm_reference
from ..plan import Planner
from ..quantize.rows import fake_quantized_rows
from ..registry import op
from ..rows import Cut
from ..sizes import Shape, Sizes, packed_linear
from ..values import Tensor

NAME = "fused_linear"
WEIGHT_FORMATS: dict[str, WeightFormat | None] = {
    "q4gsw": Q4GSW,
    "q4gaw": Q4GAW,
    "q8gsw": Q8GSW,
    "q8csw": Q8CSW,
    "q4csw": Q4CSW,
    "q4gsw_dq8": Q4GSW,
    "f32": None,
}
QUANTIZING = ("q4gsw_dq8",)  # what they read becomes int8 codes with a scale for every row
Array = np.ndarray


def fused_linear_reference(
    x: Array,
    norm_weight: Array | None,
    norm_eps: float,
    weight_format: str,
    weights: list[Array],
    scales: list[Array],
    group_size: int,
    biases: list[Array | None],
    gated: bool,
    residual: Array | None,
) -> list[Array]:
    if norm_weight is not None:
        x = rms_norm_reference(x, norm_weight, norm_eps)
    if weight_format in QUANTIZING:
        x = fake_quantized_rows(x)
    products = []
    for weight, by_group, bias in zip_longest(weights, scales, biases):
        match WEIGHT_FORMATS[weight_format]:
            case None:
                matrix = weight
            case WeightFormat(grouped=True) as layout:
                matrix = dequantize(layout, weight, by_group, group_size)[:, : x.shape[-1]]
            case layout:
                matrix = dequantize(layout, weight, by_group.reshape(1, -1), x.shape[-1])
        products.append(x @ matrix.T + (0 if bias is None else bias[: len(weight)]))
    if gated:
        gate, up = products
        products = [gate * (0.5 + 0.5 * np.tanh(gate / 2)) * up]  # silu by a function that does not overflow
    return products if residual is None else [products[0] + residual]


def fused_linear_sizes(
    s: Sizes,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_eps: float,
    weight_format: str,
    weights: list[Tensor],
    *rest: Any,
) -> list[Shape]:
    """Rows of the matrix that the result belongs to; a norm and unpacked matrices say how wide the input is."""
    unpacked = weights[:1] if weight_format in ("f32", "q8csw") else []
    for as_wide in [norm_weight] if norm_weight is not None else unpacked:
        s.equate(s.of(x)[-1:], s.of(as_wide)[-1:])
    return [packed_linear(s, x, weight) for weight in weights]


def fused_linear_rows(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    """Every row for itself, with that of the residual."""
    residual: Tensor | None = rest[-2]
    axis = cut.only(x) if residual is None else cut.together([x, residual])
    return axis if axis != x.rank - 1 else None


def fused_product(
    planner: Planner,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_eps: float,
    weight_format: str,
    weights: list[Tensor],
    scales: list[Tensor],
    group_size: int,
    biases: list[Tensor | None],
    gated: bool,
    residual: Tensor | None,
    outs: list[Tensor],
) -> Product:
    """``outs[i]`` [..., N_i] = ``x`` [..., K] times the transpose of ``weights[i]``, plus ``biases[i]``.

    ``norm_weight`` [K]: ``x`` is RMS-normalized first, x / sqrt(mean(x²) + ``norm_eps``) * ``norm_weight``.
    ``weight_format`` says what the matrices are, all of them with K input features: "f32" for float32, or all float16,
    [N_i, K] with no ``scales``, or the weights and scales of ``linear_q4gsw``, ``linear_q4gaw``, ``linear_q8gsw``, or,
    as "q8csw", of ``_weight_int8pack_mm``, and as
    "q4csw", of ``linear_qcs4w``; there ``group_size`` says nothing. With "q4gsw_dq8" the rows of the input, after the
    norm, become what their int8 codes stand for, as in ``linear_q4gsw_dq8``. A bias is None, or has at least N_i
    elements.

    ``gated``: of two matrices alike, the one output is silu(x w0ᵀ + b0) * (x w1ᵀ + b1). ``residual``, of the shape of
    the one output, is added to it. All but weights and scales are float32.
    Anything else is refused with UnsupportedProgramError.
    """
    floats = [t for t in (x, norm_weight, *biases, residual, *outs) if t is not None]
    planner.check(all(t.dtype == "float32" for t in floats), f"{NAME} takes float32 tensors, not {floats}")
    planner.check(x.rank >= 1, f"{NAME}: {x} must have a dimension of features")
    width = x.dims[-1]
    planner.check(
        norm_weight is None or norm_weight.dims == (width,),
        f"{NAME}: norm weight {norm_weight} must have the length of the rows of {x}",
    )
    matrices = _matrices(planner, weight_format, weights, scales, group_size, width)
    rows = [rows_of(matrix) for matrix in matrices]
    _check_lists(planner, rows, biases, gated, outs)
    for out in outs:
        planner.resize(out)
    planner.check(
        residual is None or (len(outs) == 1 and residual.dims == outs[0].dims),
        f"{NAME}: a residual {residual} must be like the one output, not {outs}",
    )
    m = math.prod(x.dims[:-1])
    norm = None if norm_weight is None else Norm(norm_weight, norm_eps)
    quantizes = weight_format in QUANTIZING
    return Product(x, m, tuple(matrices), tuple(biases), tuple(outs), norm, gated, residual, quantizes)


@op(
    "et_webgpu.fused_linear.default",
    reference=fused_linear_reference,
    sizes=fused_linear_sizes,
    rows=fused_linear_rows,
)
@wraps(fused_product, assigned=("__doc__", "__annotations__"))
def fused_linear(planner: Planner, *arguments: Any) -> None:
    multiply(planner, NAME, fused_product(planner, *arguments))


def _matrices(
    planner: Planner, weight_format: str, weights: list[Tensor], scales: list[Tensor], group_size: int, width: int
) -> list[Matrix]:
    planner.check(
        weight_format in WEIGHT_FORMATS,
        f"{NAME}: there is no format of weights {weight_format!r}; there are {', '.join(WEIGHT_FORMATS)}",
    )
    layout = WEIGHT_FORMATS[weight_format]
    if layout is None:
        planner.check(not scales, f"{NAME}: matrices of floats have no scales, but there are {scales}")
        planner.check(len({w.dtype for w in weights}) <= 1, f"{NAME}: matrices {weights} must have one dtype")
        for weight in weights:
            planner.check(
                weight.dtype in ("float32", "float16") and weight.rank == 2 and weight.dims[1] == width,
                f"{NAME}: {weight} must be a matrix of floats [N, {width}]",
            )
        return list(weights)
    planner.check(
        len(scales) == len(weights), f"{NAME}: {len(weights)} matrices need as many scales, not {len(scales)}"
    )
    pairs = zip(weights, scales, strict=True)
    if layout.grouped:
        return [grouped_matrix(planner, NAME, layout, w, s, group_size, width) for w, s in pairs]
    return [channel_matrix(planner, NAME, layout, w, s, width) for w, s in pairs]


def _check_lists(
    planner: Planner, rows: list[int], biases: list[Tensor | None], gated: bool, outs: list[Tensor]
) -> None:
    planner.check(len(rows) > 0, f"{NAME} needs a matrix")
    planner.check(
        len(biases) == len(rows), f"{NAME}: {len(rows)} matrices need as many biases or None, not {len(biases)}"
    )
    for bias, n in zip(biases, rows, strict=True):
        planner.check(bias is None or bias.numel >= n, f"{NAME}: bias {bias} must hold {n} elements")
    planner.check(not gated or (len(rows) == 2 and rows[0] == rows[1]), f"{NAME}: a gate takes two matrices alike")
    count = 1 if gated else len(rows)
    planner.check(len(outs) == count, f"{NAME} has {count} results here, not {len(outs)}")
