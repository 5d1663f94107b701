"""Linear layers with symmetric 4-bit weights and one scale for a group of input features.

Three routes, each right for every legal shape:

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

from ..plan import Planner
from ..registry import op
from ..shapes import ceil_div
from ..values import Tensor

GEMV_ROWS = 4  # from more rows on, gemm reads the weights less often
# The columns route: a workgroup is one AVX2 vector of invocations, so that narrow layers feed every core.
# An invocation takes 32 output features, or 16 of a layer that has fewer than WIDE_LAYER.
COLUMNS_WORKGROUP = 8
WIDE_LAYER = 512
_WEIGHTS_PER_WORD = 8


@dataclass(frozen=True)
class Route:
    """A kernel and the tile of the output that one workgroup computes."""

    name: str
    rows: int
    columns: int
    max_words: int  # of weights that one load may take
    template: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kernel(self) -> str:
        return f"linear_q4/{self.name}"


def _columns(m: int, n: int) -> Route:
    rows = 1 if m == 1 else 4
    columns = 32 if n >= WIDE_LAYER else 16
    return Route("columns", rows, COLUMNS_WORKGROUP * columns, 4, {"rows": rows, "columns": columns})


GEMV = Route("gemv", 1, 4, 4)
GEMM = Route("gemm", 64, 64, 1)


def _routes(m: int, n: int, cpu: bool) -> list[Route]:
    """One route of each name for an output [m, n], the preferred one first."""
    columns = _columns(m, n)
    if cpu:
        return [columns, GEMV, GEMM]
    return [GEMV, GEMM, columns] if m <= GEMV_ROWS else [GEMM, GEMV, columns]


def linear_q4gsw_reference(
    x: np.ndarray, weights: np.ndarray, scales: np.ndarray, group_size: int, bias: np.ndarray | None
) -> np.ndarray:
    n, k = len(weights), x.shape[-1]
    pairs = np.stack([weights & 15, weights >> 4], axis=-1).astype(np.float64) - 8
    group = np.arange(k) // group_size
    out = x @ (pairs.reshape(n, -1)[:, :k].T * scales[group, :n])
    return out if bias is None else out + bias[:n]


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
    n, k, m = _check(g, x, weights, scales, group_size, bias, out)
    g.resize(out, (*x.dims[:-1], n))
    routes = {route.name: route for route in _routes(m, n, g.features.cpu)}
    route = routes[g.choose("linear_q4gsw", dict.fromkeys(routes, True))]
    for other in _routes(1, n, g.features.cpu):  # what a single row takes, or would by the forced route
        if other.name in (route.name, _routes(1, n, g.features.cpu)[0].name):
            g.prepare(other.kernel, template=_template(other, k, weights, group_size, bias))
    column_tiles = ceil_div(n, route.columns)
    bindings = {"x": x, "weights": weights, "scales": scales, "out": out}
    g.dispatch(
        route.kernel,
        g.grid_1d(ceil_div(m, route.rows) * column_tiles, 1),
        bindings if bias is None else bindings | {"bias": bias},
        {
            "m": m,
            "n": n,
            "k": k,
            "group_size": min(group_size, k),
            "row_words": weights.dims[1] // 4,
            "scale_quads": scales.dims[1] // 4,
            "column_tiles": column_tiles,
        },
        template=_template(route, k, weights, group_size, bias),
    )


def _check(
    g: Planner, x: Tensor, weights: Tensor, scales: Tensor, group_size: int, bias: Tensor | None, out: Tensor
) -> tuple[int, int, int]:
    """Refuse what no route can run; answers with N, K and the number of rows M."""
    floats = [t for t in (x, scales, bias, out) if t is not None]
    g.check(
        weights.dtype == "uint8" and all(t.dtype == "float32" for t in floats),
        f"linear_q4gsw takes uint8 weights and float32 otherwise, not {weights} with {floats}",
    )
    g.check(
        x.rank >= 1 and weights.rank == scales.rank == 2,
        f"linear_q4gsw: {weights} and {scales} must be matrices",
    )
    (n, row_bytes), k, m = weights.dims, x.dims[-1], math.prod(x.dims[:-1])
    g.check(
        row_bytes % 4 == 0 and 2 * row_bytes >= k,
        f"linear_q4gsw: rows of {weights} must be whole 4-byte words that hold the {k} features of {x}",
    )
    g.check(
        group_size > 0 and (group_size % _WEIGHTS_PER_WORD == 0 or group_size >= k),
        f"linear_q4gsw: group size {group_size} must be a multiple of {_WEIGHTS_PER_WORD}, or all of {k}",
    )
    groups = ceil_div(k, group_size)
    g.check(
        scales.dims[0] >= groups and scales.dims[1] >= n and scales.dims[1] % 4 == 0,
        f"linear_q4gsw: scales {scales} must be [{groups}, {n}], padded to a multiple of 4",
    )
    g.check(bias is None or bias.numel >= n, f"linear_q4gsw: bias {bias} must hold {n} elements")
    return n, k, m


def _template(route: Route, k: int, weights: Tensor, group_size: int, bias: Tensor | None) -> dict[str, Any]:
    """What the WGSL of a route needs to know of a call: how wide loads may be, and where rows end."""
    whole_blocks = weights.dims[1] % 16 == 0 and (group_size % 32 == 0 or group_size >= k)
    words = 4 if whole_blocks and route.max_words == 4 else 1
    step = 32 if route is GEMM else words * _WEIGHTS_PER_WORD
    return {
        **route.template,
        "words": words,
        "quads": k % 4 == 0,
        "guarded": k % step != 0,
        "bias": bias is not None,
    }
