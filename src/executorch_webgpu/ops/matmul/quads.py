"""The quads route: packed quantized weights on adapters that are CPUs, all of a product in one dispatch.

A workgroup is a subgroup whose lanes share x and compute quads of columns alone.
"""

from __future__ import annotations

from typing import Any

from ..plan import Planner
from ..shapes import ceil_div
from .call import Call, Product, bindings, params, template
from .formats import QuantizedMatrix

_BLOCK = 32  # of K, that a lane has at a time; it needs a single scale
_ROW_COUNTS = (1, 4, 6)  # of x, that a lane may compute; more sums do not fit a CPU's registers
_CODES_COST = 2  # rows whose products take as long as reading the codes that serve all rows


def fits(planner: Planner, product: Product) -> bool:
    """Whether a workgroup can be one subgroup, and groups are whole blocks."""
    return planner.features.subgroup_size > 0 and all(
        isinstance(matrix, QuantizedMatrix) and (matrix.group_size % _BLOCK == 0 or matrix.group_size == matrix.width)
        for matrix in product.matrices
    )


def prepare(planner: Planner, call: Call) -> None:
    """Pipelines for every number of rows up to ``call.m``."""
    for rows in {_rows(m) for m in range(1, min(call.m, 2 * _ROW_COUNTS[-1]) + 1)} | {_rows(call.m)}:
        planner.prepare("matmul/quads", template=_template(planner, call, rows))


def run(planner: Planner, call: Call) -> None:
    variant = _template(planner, call, _rows(call.m))
    column_tiles = ceil_div(call.packed.quads, variant["lanes"] * (2 if call.gated else 1))
    planner.dispatch(
        "matmul/quads",
        planner.grid_1d(ceil_div(call.m, variant["rows"]) * column_tiles, 1),
        bindings(call),
        params(call, column_tiles),
        template=variant,
    )


def _rows(m: int) -> int:
    """Of x, that a lane computes: what takes the least time for ``m`` of them."""
    return min(_ROW_COUNTS, key=lambda rows: ceil_div(m, rows) * (rows + _CODES_COST))


def _template(planner: Planner, call: Call, rows: int) -> dict[str, Any]:
    return {
        **template(call),
        "lanes": planner.features.subgroup_size,
        "rows": rows,
        "guarded": call.packed.width % _BLOCK != 0,
    }
