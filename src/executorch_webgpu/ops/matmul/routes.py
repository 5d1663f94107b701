"""Which kernel computes a product, and what a load prepares for other numbers of rows.

* ``columns``: an invocation computes whole columns alone, for adapters that are CPUs;
* ``quads``: the same over packed quantized weights, whose lanes share x;
* ``gemv``: lanes share columns, for up to 8 rows;
* ``gemv_bytes``: the same for one row and weights of 4 bits, with x as whole numbers;
* ``gemm``: a workgroup shares a tile of the output through workgroup memory, for more;
* ``matrix``: the same on tensor cores;
* ``few``: on tensor cores for up to 64 rows of quantized weights, whose time is that of reading these;
* ``matrix_f16`` and ``few_f16``: faster and less exact, chosen where the method was loaded with
  ``matmul_precision="high"``.

All but the first read weights that are repacked at load (packed.py), so they want constants. Each is right for every
number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...errors import KernelError
from ..handover import SplitForm
from ..plan import Planner
from ..values import Tensor
from . import columns, gemm, gemm_few, gemm_matrix, gemv, gemv_bytes, quads
from .call import MAX_OUTPUTS, Call, Product, normalized, quantized
from .packed import can_pack

_MATRIX_PARTS = {"matrix": 2, "matrix_f16": 1}  # float16 numbers for each float32
_FEW_PARTS = {"few": 2, "few_f16": 1}
_ROWS = (*range(1, gemv.MAX_ROWS + 2), 16, 17, 32, 33, 64, 65, 128, 129)  # where another route may begin


def multiply(planner: Planner, family: str, product: Product) -> None:
    """Plans ``product`` by a route of ``family``."""
    if product.quantizes:
        product = quantized(planner, product)
    parts = list(_parts(planner, product))
    packable = all(_can_pack(planner, part) for part in parts)
    _prepare_all(planner, family, product, packable)
    route = _choose(planner, family, product, packable)
    if route not in _MATRIX_PARTS and isinstance(product.x, Tensor) and product.x.split is not None:
        raise KernelError(f"{family}: {product.x} was left as float16, which the route {route} does not read")
    if route == "columns":
        columns.run(planner, product)
        return
    if route == "gemm":
        before = normalized(planner, product)
        parts = [replace(part, x=before.x, norm=None) for part in parts]
    for call in map(Call.of, parts):
        match route:
            case "quads":
                quads.run(planner, call)
            case "gemv":
                gemv.run(planner, call)
            case "gemv_bytes":
                gemv_bytes.run(planner, call)
            case "gemm":
                gemm.run(planner, call)
            case "few" | "few_f16":
                gemm_few.run(planner, call, _FEW_PARTS[route])
            case _:
                gemm_matrix.run(planner, call, _MATRIX_PARTS[route])


def split_form(planner: Planner, family: str, product: Product) -> SplitForm | None:
    """How ``multiply`` takes x, if it comes as float16: by a matrix route, which then splits no rows itself."""
    if product.quantizes or product.norm is not None or len(product.matrices) > 1:
        return None
    parts = _MATRIX_PARTS.get(_choose(planner, family, product, _can_pack(planner, product)))
    return None if parts is None else gemm_matrix.form_of_x(planner, Call.of(product), parts)


def _choose(planner: Planner, family: str, product: Product, packable: bool) -> str:
    possible = {"columns": True, "gemv": packable, "gemm": packable}
    possible["quads"] = packable and quads.fits(planner, product)
    possible["gemv_bytes"] = packable and gemv_bytes.fits(planner, product)
    possible |= {name: packable and gemm_matrix.fits(planner, product, parts) for name, parts in _MATRIX_PARTS.items()}
    possible |= {name: packable and gemm_few.fits(planner, product, parts) for name, parts in _FEW_PARTS.items()}
    if planner.features.cpu:
        order = ["quads", "columns", "gemv", "gemm"]
    else:
        parts = (1, 2) if planner.rounds else (2,)
        order = [_named(_FEW_PARTS, n) for n in parts if gemm_few.pays(planner, product, n)]
        if product.m <= gemv.MAX_ROWS:
            order += ["gemv_bytes"] if gemv_bytes.pays(planner, product) else []
            order += ["gemv", "gemm", "columns"]
        else:
            many = [_named(_MATRIX_PARTS, n) for n in parts] if gemm_matrix.pays(product) else []
            order += [*many, "gemm", "gemv", "columns"]
    order += [name for name in possible if name not in order]
    return planner.choose(family, {name: possible[name] for name in order})


def _named(routes: Mapping[str, int], parts: int) -> str:
    return next(name for name, n in routes.items() if n == parts)


def _prepare_all(planner: Planner, family: str, product: Product, packable: bool) -> None:
    """Every pipeline that this number of rows and smaller ones take."""
    if not planner.building:
        return
    most: dict[str, int] = {}  # rows of each route
    for m in sorted({m for m in _ROWS if m < product.m} | {product.m}):
        most[_choose(planner, family, replace(product, m=m), packable)] = m
    for route, m in most.items():
        _prepare(planner, route, replace(product, m=m))


def _prepare(planner: Planner, route: str, product: Product) -> None:
    if route == "columns":
        columns.prepare(planner, product)
        return
    for call in map(Call.of, _parts(planner, product)):
        match route:
            case "quads":
                quads.prepare(planner, call)
            case "gemv":
                gemv.prepare(planner, call)
            case "gemv_bytes":
                gemv_bytes.prepare(planner, call)
            case "gemm":
                gemm.prepare(planner, call)
            case "few" | "few_f16":
                gemm_few.prepare(planner, call, _FEW_PARTS[route])
            case _:
                gemm_matrix.prepare(planner, call, _MATRIX_PARTS[route])


def _parts(planner: Planner, product: Product) -> Iterator[Product]:
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
        part = next(chunk for chunk in chunks if len(chunk.matrices) == 1 or _can_pack(planner, chunk))
        yield part
        start += len(part.matrices)


def _can_pack(planner: Planner, product: Product) -> bool:
    return can_pack(planner, product.matrices, product.biases)
