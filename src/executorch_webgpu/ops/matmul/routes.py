"""Which kernel computes a product, and what a load prepares for other numbers of rows.

* ``columns``: an invocation computes whole columns alone, for adapters that are CPUs;
* ``gemv``: lanes share columns, for up to 8 rows;
* ``gemm``: a workgroup shares a tile of the output through workgroup memory, for more;
* ``matrix``: the same on tensor cores, of quantized weights;
* ``matrix_f16``: faster and less exact, chosen where the method was loaded with ``matmul_precision="high"``.

All but the first read weights that are repacked at load (packed.py), so they want constants. Each is right for every
number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..plan import Planner
from . import columns, gemm, gemm_matrix, gemv
from .call import MAX_OUTPUTS, Call, Product, normalized
from .packed import can_pack

_MATRIX_PARTS = {"matrix": 2, "matrix_f16": 1}  # float16 numbers for each float32


def multiply(g: Planner, family: str, product: Product) -> None:
    """Plans ``product`` by a route of ``family``."""
    parts = list(_parts(g, product))
    packable = all(_can_pack(g, part) for part in parts)
    if product.m > 1:
        one = replace(product, m=1)
        _prepare(g, _choose(g, family, one, packable), product, parts)
    route = _choose(g, family, product, packable)
    _prepare(g, route, product, parts)
    if route == "columns":
        columns.run(g, product)
        return
    if route == "gemm":
        before = normalized(g, product)
        parts = [replace(part, x=before.x, norm=None) for part in parts]
    for call in map(Call.of, parts):
        match route:
            case "gemv":
                gemv.run(g, call)
            case "gemm":
                gemm.run(g, call)
            case _:
                gemm_matrix.run(g, call, _MATRIX_PARTS[route])


def _choose(g: Planner, family: str, product: Product, packable: bool) -> str:
    possible = {"columns": True, "gemv": packable, "gemm": packable}
    possible |= {name: packable and gemm_matrix.fits(g, product, parts) for name, parts in _MATRIX_PARTS.items()}
    if g.features.cpu:
        order = ["columns", "gemv", "gemm"]
    elif product.m <= gemv.MAX_ROWS:
        order = ["gemv", "gemm", "columns"]
    else:
        rounded = ["matrix_f16"] if g.matmul_precision == "high" else []
        order = [*rounded, "matrix", "gemm", "gemv", "columns"]
    order += [name for name in possible if name not in order]
    return g.choose(family, {name: possible[name] for name in order})


def _prepare(g: Planner, route: str, product: Product, parts: list[Product]) -> None:
    if not g.building:
        return
    if route == "columns":
        columns.prepare(g, product)
        return
    for call in map(Call.of, parts):
        match route:
            case "gemv":
                gemv.prepare(g, call)
            case "gemm":
                gemm.prepare(g, call)
            case _:
                gemm_matrix.prepare(g, call, _MATRIX_PARTS[route])


def _parts(g: Planner, product: Product) -> Iterator[Product]:
    """The product as what single dispatches can do: few enough outputs, and matrices that can be packed as one."""
    start, count = 0, len(product.matrices)
    if product.gated or count == 1:
        yield product
        return
    while start < count:
        chunks = (
            replace(
                product,
                matrices=product.matrices[start:stop],
                biases=product.biases[start:stop],
                outs=product.outs[start:stop],
            )
            for stop in range(min(start + MAX_OUTPUTS, count), start, -1)
        )
        part = next(chunk for chunk in chunks if len(chunk.matrices) == 1 or _can_pack(g, chunk))
        yield part
        start += len(part.matrices)


def _can_pack(g: Planner, product: Product) -> bool:
    return can_pack(g, product.matrices, product.biases)
