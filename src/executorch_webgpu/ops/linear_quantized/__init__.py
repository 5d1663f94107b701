"""Linear layers with quantized weights.

Three routes, each right for every legal shape and every format of weights:

* ``columns``: an invocation computes whole columns alone, for adapters that are CPUs;
* ``gemv``: a workgroup shares four columns of one row, for few rows;
* ``gemm``: a workgroup shares a 64 x 64 tile through workgroup memory, for many rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..registry import op
from ..shapes import ceil_div
from ..values import Tensor
from .formats import Q4GAW, Q4GSW, Q8CSW, Q8GSW, PackedMatrix, WeightFormat, channel_matrix, dequantize, grouped_matrix

GEMV_ROWS = 4  # from more rows on, gemm reads the weights less often
# The columns route: a workgroup is one AVX2 vector of invocations, so that narrow layers feed every core.
# An invocation takes 32 output features, or 16 of a layer that has fewer than WIDE_LAYER.
COLUMNS_WORKGROUP = 8
WIDE_LAYER = 512
_WIDE_BLOCK = 32  # weights that are read as vec4s of words; gemm takes as many steps along K at a time


@dataclass(frozen=True)
class Route:
    """A kernel and the tile of the output that one workgroup computes."""

    name: str
    rows: int
    columns: int
    wide: bool = True  # whether it can read four words at once
    template: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kernel(self) -> str:
        return f"linear_quantized/{self.name}"


def _columns(m: int, n: int) -> Route:
    rows = 1 if m == 1 else 4
    columns = 32 if n >= WIDE_LAYER else 16
    return Route("columns", rows, COLUMNS_WORKGROUP * columns, template={"rows": rows, "columns": columns})


GEMV = Route("gemv", 1, 4)
GEMM = Route("gemm", 64, 64, wide=False)


def _routes(m: int, n: int, cpu: bool) -> list[Route]:
    """One route of each name for an output [m, n], the preferred one first."""
    columns = _columns(m, n)
    if cpu:
        return [columns, GEMV, GEMM]
    return [GEMV, GEMM, columns] if m <= GEMV_ROWS else [GEMM, GEMV, columns]


def _product(
    x: np.ndarray,
    form: WeightFormat,
    weights: np.ndarray,
    scales: np.ndarray,
    group_size: int,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    out = x @ dequantize(form, weights, scales, group_size)[:, : x.shape[-1]].T
    return out if bias is None else out + bias[: len(weights)]


def linear_q4gsw_reference(
    x: np.ndarray, weights: np.ndarray, scales: np.ndarray, group_size: int, bias: np.ndarray | None
) -> np.ndarray:
    return _product(x, Q4GSW, weights, scales, group_size, bias)


@op("et_vk.linear_q4gsw.default", reference=linear_q4gsw_reference)
def linear_q4gsw(
    g: Planner, x: Tensor, weights: Tensor, scales: Tensor, group_size: int, bias: Tensor | None, out: Tensor
) -> None:
    """``out`` [..., N] = ``x`` [..., K] times the transpose of the dequantized ``weights``, plus ``bias``.

    ``weights`` [N, B] uint8 holds two weights a byte, the even one in the low nibble, each with 8 added;
    B is a multiple of 4 and at least K/2. ``scales`` [ceil(K / group_size), S] with S >= N a multiple of 4;
    ``group_size`` is a multiple of 8, or at least K. ``bias`` holds at least N elements. All but the weights
    are float32. Anything else is refused with UnsupportedProgramError.
    """
    _grouped(g, "linear_q4gsw", Q4GSW, x, weights, scales, group_size, bias, out)


def linear_q4gaw_reference(
    x: np.ndarray, weights: np.ndarray, scales_and_mins: np.ndarray, group_size: int, bias: np.ndarray | None
) -> np.ndarray:
    return _product(x, Q4GAW, weights, scales_and_mins, group_size, bias)


@op("et_webgpu.linear_q4gaw.default", reference=linear_q4gaw_reference)
def linear_q4gaw(
    g: Planner, x: Tensor, weights: Tensor, scales_and_mins: Tensor, group_size: int, bias: Tensor | None, out: Tensor
) -> None:
    """Like ``linear_q4gsw``, with weights ``code * scale + min``: the blocks of GGUF's Q4_0 and Q4_1, unchanged.

    ``weights`` [N, B] uint8 holds two codes of 0 to 15 a byte, the even one in the low nibble.
    ``scales_and_mins`` [ceil(K / group_size), S, 2] float16: the scale, then the minimum.
    """
    _grouped(g, "linear_q4gaw", Q4GAW, x, weights, scales_and_mins, group_size, bias, out)


def linear_q8gsw_reference(
    x: np.ndarray, weights: np.ndarray, scales: np.ndarray, group_size: int, bias: np.ndarray | None
) -> np.ndarray:
    return _product(x, Q8GSW, weights, scales, group_size, bias)


@op("et_webgpu.linear_q8gsw.default", reference=linear_q8gsw_reference)
def linear_q8gsw(
    g: Planner, x: Tensor, weights: Tensor, scales: Tensor, group_size: int, bias: Tensor | None, out: Tensor
) -> None:
    """Like ``linear_q4gsw``, with 8-bit weights: the blocks of GGUF's Q8_0, unchanged.

    ``weights`` [N, B] int8, with B a multiple of 4 and at least K; ``group_size`` is a multiple of 4, or at least K.
    ``scales`` [ceil(K / group_size), S] float16.
    """
    _grouped(g, "linear_q8gsw", Q8GSW, x, weights, scales, group_size, bias, out)


def weight_int8pack_mm_reference(x: np.ndarray, weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return _product(x, Q8CSW, weights, scales[None], weights.shape[1])


@op("aten._weight_int8pack_mm.default", reference=weight_int8pack_mm_reference)
def weight_int8pack_mm(g: Planner, x: Tensor, weights: Tensor, scales: Tensor, out: Tensor) -> None:
    """``out`` [..., N] = ``x`` [..., K] times the transpose of ``weights`` [N, K] int8, times ``scales`` [N].

    All but the weights are float32. K may be any number; rows of whole words (K a multiple of 4) are faster.
    """
    name = "weight_int8pack_mm"
    g.check(x.rank >= 1, f"{name}: {x} must have a dimension of features")
    _linear(g, name, x, channel_matrix(g, name, Q8CSW, weights, scales, x.dims[-1]), None, out)


def _grouped(
    g: Planner,
    name: str,
    form: WeightFormat,
    x: Tensor,
    weights: Tensor,
    scales: Tensor,
    group_size: int,
    bias: Tensor | None,
    out: Tensor,
) -> None:
    g.check(x.rank >= 1, f"{name}: {x} must have a dimension of features")
    matrix = grouped_matrix(g, name, form, weights, scales, group_size, x.dims[-1])
    _linear(g, name, x, matrix, bias, out)


def _linear(g: Planner, name: str, x: Tensor, matrix: PackedMatrix, bias: Tensor | None, out: Tensor) -> None:
    floats = [t for t in (x, bias, out) if t is not None]
    g.check(all(t.dtype == "float32" for t in floats), f"{name} takes float32, not {floats}")
    g.check(bias is None or bias.numel >= matrix.rows, f"{name}: bias {bias} must hold {matrix.rows} elements")
    g.resize(out, (*x.dims[:-1], matrix.rows))
    multiply(g, name, x, math.prod(x.dims[:-1]), matrix, bias, out)


def multiply(
    g: Planner, family: str, x: Binding, m: int, matrix: PackedMatrix, bias: Tensor | None, out: Binding
) -> None:
    """``out`` [m, N] = ``x`` [m, K] times the transpose of ``matrix``, plus ``bias``, by a route of ``family``."""
    n, k = matrix.rows, matrix.width
    routes = {route.name: route for route in _routes(m, n, g.features.cpu)}
    route = routes[g.choose(family, dict.fromkeys(routes, True))]
    for other in _routes(1, n, g.features.cpu):  # what a single row takes, or would by the forced route
        if other.name in (route.name, _routes(1, n, g.features.cpu)[0].name):
            g.prepare(other.kernel, template=_template(other, matrix, bias))
    template = _template(route, matrix, bias)
    column_tiles = ceil_div(n, route.columns)
    bindings: dict[str, Binding] = {"x": x, "weights": matrix.weights, "scales": matrix.scales, "out": out}
    g.dispatch(
        route.kernel,
        g.grid_1d(ceil_div(m, route.rows) * column_tiles, 1),
        bindings if bias is None else bindings | {"bias": bias},
        {
            "m": m,
            "n": n,
            "k": k,
            "group_size": matrix.group_size,
            "row_stride": matrix.row_bytes // (4 * template["words"] if template["aligned"] else 1),
            "scale_quads": matrix.scale_quads,
            "column_tiles": column_tiles,
        },
        template=template,
    )


def _template(route: Route, matrix: PackedMatrix, bias: Tensor | None) -> dict[str, Any]:
    """What the WGSL of a route needs to know of a call: how wide loads may be, and where rows end."""
    form, k = matrix.form, matrix.width
    whole_rows = matrix.row_bytes * 8 % (_WIDE_BLOCK * form.bits) == 0
    whole_groups = matrix.group_size % _WIDE_BLOCK == 0 or matrix.group_size == k
    wide = route.wide and whole_rows and whole_groups
    step = _WIDE_BLOCK if wide or route is GEMM else form.per_word
    return {
        **route.template,
        **form.template,
        "step": step,
        "words": 4 if wide else 1,
        "aligned": matrix.row_bytes % 4 == 0,
        "quads": k % 4 == 0,
        "guarded": k % step != 0,
        "bias": bias is not None,
    }
