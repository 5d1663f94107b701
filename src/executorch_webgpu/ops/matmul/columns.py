"""The columns route: matrices as they lie in the file, and a dispatch for everything.

An invocation computes whole columns alone, which is what adapters that are CPUs run best. It is also the only route
for quantized weights that the program computes.
"""

from __future__ import annotations

from typing import Any

from ..plan import Binding, Planner
from ..shapes import ceil_div
from ..values import Tensor
from .call import Product, normalized
from .formats import QuantizedMatrix
from .packed import Matrix, rows_of

# A workgroup is one AVX2 vector of invocations, so that narrow layers feed every core. Of quantized weights, an
# invocation takes 32 output features, or 16 of a layer that has fewer than WIDE_LAYER.
WORKGROUP = 8
WIDE_LAYER = 512
_WIDE_BLOCK = 32  # weights that are read as vec4s of words
_FLOAT_COLUMNS = 8
_ELEMENTWISE_WORKGROUP = 64


def prepare(planner: Planner, product: Product) -> None:
    """Pipelines for a single row and for more."""
    for matrix, bias in zip(product.matrices, product.biases, strict=True):
        for m in {1, min(product.m, 2)}:
            kernel, template = _kernel(matrix, m, bias)
            planner.prepare(kernel, template=template)


def run(planner: Planner, product: Product) -> None:
    product = normalized(planner, product)
    m, x = product.m, product.x
    n = rows_of(product.matrices[0])
    outs = list(product.outs)
    if product.gated or product.residual is not None:
        outs = [planner.scratch(4 * m * n) for _ in product.matrices]
    for matrix, bias, out in zip(product.matrices, product.biases, outs, strict=True):
        _multiply(planner, x, m, matrix, bias, out)
    if product.gated:
        to = product.outs[0] if product.residual is None else planner.scratch(4 * m * n)
        _combine(planner, outs[0], outs[1], to, "a * sigmoid(a) * b", m * n)
        outs = [to]
    if product.residual is not None:
        _combine(planner, outs[0], product.residual, product.outs[0], "a + b", m * n)


def _multiply(planner: Planner, x: Binding, m: int, matrix: Matrix, bias: Tensor | None, out: Binding) -> None:
    kernel, template = _kernel(matrix, m, bias)
    n = rows_of(matrix)
    column_tiles = ceil_div(n, WORKGROUP * template["columns"])
    bindings: dict[str, Binding] = {"x": x, "out": out} | ({} if bias is None else {"bias": bias})
    params: dict[str, Any] = {"m": m, "n": n, "column_tiles": column_tiles}
    if isinstance(matrix, Tensor):
        k = matrix.dims[1]
        bindings["weights"] = matrix
        params["units"] = k // 4 if k % 4 == 0 else k
    else:
        bindings |= {"weights": matrix.weights, "scales": matrix.scales}
        params |= {
            "k": matrix.width,
            "group_size": matrix.group_size,
            "row_stride": matrix.row_bytes
            // (16 if template["step"] == _WIDE_BLOCK else 4 if template["aligned"] else 1),
            "scale_quads": matrix.scale_quads,
        }
    planner.dispatch(
        kernel, planner.grid_1d(ceil_div(m, template["rows"]) * column_tiles, 1), bindings, params, template=template
    )


def _kernel(matrix: Matrix, m: int, bias: Tensor | None) -> tuple[str, dict[str, Any]]:
    """The kernel for ``m`` rows, and what its WGSL needs to know: how wide loads may be, and where rows end."""
    template: dict[str, Any] = {"rows": 1 if m == 1 else 4, "bias": bias is not None}
    if isinstance(matrix, Tensor):
        floats = {"vec4_x": matrix.dims[1] % 4 == 0, "bits": 16 if matrix.dtype == "float16" else 32}
        return "matmul/columns", template | floats | {"columns": _FLOAT_COLUMNS}
    return "matmul/columns_quantized", template | quantized_template(matrix)


def quantized_template(matrix: QuantizedMatrix) -> dict[str, Any]:
    layout, k = matrix.weight_format, matrix.width
    whole_rows = matrix.row_bytes * 8 % (_WIDE_BLOCK * layout.bits) == 0
    whole_groups = matrix.group_size % _WIDE_BLOCK == 0 or matrix.group_size == k
    step = _WIDE_BLOCK if whole_rows and whole_groups else layout.per_word
    return {
        **layout.template,
        "high_first": layout.high_first,
        "columns": 32 if matrix.rows >= WIDE_LAYER else 16,
        "step": step,
        "aligned": matrix.row_bytes % 4 == 0,
        "vec4_x": k % 4 == 0,
        "guarded": k % step != 0,
    }


def _combine(planner: Planner, a: Binding, b: Binding, out: Binding, expression: str, numel: int) -> None:
    """An elementwise step after the products."""
    dtypes = {"dtypes": ("float32", "float32"), "out": "float32", "compute": "f32"}
    planner.dispatch(
        "elementwise/broadcast",
        planner.grid_1d(ceil_div(numel, 4), _ELEMENTWISE_WORKGROUP),
        {"a_data": a, "b_data": b, "out": out},
        {"n": numel, "p": 1.0},
        overrides={"wg_size": _ELEMENTWISE_WORKGROUP},
        template={**dtypes, "places": "equal", "expression": expression},
    )
