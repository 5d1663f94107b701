"""The gemv_bytes route: one row of x as whole numbers, times packed weights of 4 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..plan import Planner
from ..shapes import ceil_div
from .call import Call, Product, bindings, params, template
from .formats import QuantizedMatrix
from .packed import LEAST_SUBGROUP, lanes_of_team

_PER_UNIT = 8  # weights of a row in a unit
_UNIT_BYTES = {3: 32, 2: 24}  # of x in workgroup memory, by bytes of a whole number
_SUMS_BYTES = 8 * 4 + 4  # of a subgroup, there
# What is worth making x whole numbers in each workgroup.
_LEAST_WEIGHTS, _MANY_COLUMNS = 20 << 20, 20 << 10


@dataclass(frozen=True)
class Tuning:
    """What the kernel's speed depends on, not its result. Powers of two, but for ``workgroups``."""

    workgroup_size: int = 256
    unroll: int = 4  # units of each of two quads that a lane loads at a time
    workgroups: int = 264  # at most: each makes all of x whole numbers


TUNING = Tuning()


def x_bytes(planner: Planner) -> int:
    """Of the whole numbers that x becomes, by how exact products are to be."""
    return 2 if planner.rounds else 3


def fits(planner: Planner, product: Product) -> bool:
    """Whether there is one row, of whole units, and subgroups are of one size, and not too small."""
    tuning = planner.tuning("matmul/gemv_bytes", TUNING)
    return (
        product.m == 1
        and product.width % _PER_UNIT == 0
        and LEAST_SUBGROUP <= planner.features.subgroup_size <= tuning.workgroup_size
        and tuning.workgroup_size <= planner.limits.max_invocations
        and all(isinstance(m, QuantizedMatrix) and m.weight_format.bits == 4 for m in product.matrices)
        and _chunk(planner, product.width // _PER_UNIT, planner.features.subgroup_size) > 0
    )


def pays(planner: Planner, product: Product) -> bool:
    """Whether it is faster than gemv, which it is for large matrices with more columns than x is long."""
    columns = sum(m.rows for m in product.matrices if isinstance(m, QuantizedMatrix))
    least = max(product.width, min(_MANY_COLUMNS, _LEAST_WEIGHTS // product.width))
    return planner.features.byte_products and columns >= least


def prepare(planner: Planner, call: Call) -> None:
    planner.prepare("matmul/gemv_bytes", template=_template(planner, call), overrides=_overrides(planner, call))


def run(planner: Planner, call: Call) -> None:
    tuning, overrides = planner.tuning("matmul/gemv_bytes", TUNING), _overrides(planner, call)
    tiles = ceil_div(_slots(call), tuning.workgroup_size // overrides["lanes"])
    planner.dispatch(
        "matmul/gemv_bytes",
        (min(tiles, tuning.workgroups), 1, 1),
        bindings(call),
        params(call, tiles),
        overrides=overrides,
        template=_template(planner, call),
    )


def _slots(call: Call) -> int:
    """Pairs of quads of columns."""
    return ceil_div(call.packed.quads, 2)


def _overrides(planner: Planner, call: Call) -> dict[str, int]:
    tuning, units = planner.tuning("matmul/gemv_bytes", TUNING), call.packed.units
    size, subgroup = tuning.workgroup_size, planner.features.subgroup_size
    lanes = lanes_of_team(_slots(call), units, tuning.workgroups, size, subgroup, tuning.unroll)
    while _chunk(planner, units, lanes) == 0:
        lanes //= 2
    return {"wg_size": size, "lanes": lanes, "chunk": _chunk(planner, units, lanes)}


def _chunk(planner: Planner, units: int, lanes: int) -> int:
    """Units of x that workgroup memory has at a time: all, or whole turns of teams of ``lanes``; 0: not even one."""
    tuning = planner.tuning("matmul/gemv_bytes", TUNING)
    sums = _SUMS_BYTES * (tuning.workgroup_size // planner.features.subgroup_size)
    most, step = (planner.limits.max_workgroup_bytes - sums) // _UNIT_BYTES[x_bytes(planner)], tuning.unroll * lanes
    return units if units <= most else most // step * step


def _template(planner: Planner, call: Call) -> dict[str, Any]:
    tuning = planner.tuning("matmul/gemv_bytes", TUNING)
    return {
        **template(call),
        "x_bytes": x_bytes(planner),
        "unroll": tuning.unroll,
        "subgroup": planner.features.subgroup_size,
        "unit_group": call.group_units,
        "even": call.packed.units % (tuning.unroll * _overrides(planner, call)["lanes"]) == 0,
    }
