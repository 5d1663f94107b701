"""The gemv_bytes route: one row of x as whole numbers, times packed weights of 4 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..plan import Planner
from ..shapes import ceil_div
from .call import Call, Product, bindings, params, template
from .formats import QuantizedMatrix
from .packed import groups_of_set, lanes_of_team

_PER_UNIT = 8  # weights of a row in a unit
_UNIT_BYTES = 32  # of x, in workgroup memory
_LEAST_COLUMNS = 24 << 10  # that are worth making x whole numbers in each workgroup


@dataclass(frozen=True)
class Tuning:
    """What the kernel's speed depends on, not its result. Powers of two, but for ``workgroups``."""

    workgroup_size: int = 256
    unroll: int = 4  # units of each of two quads that a lane loads at a time
    workgroups: int = 264  # at most: each makes all of x whole numbers


TUNING = Tuning()


def fits(planner: Planner, product: Product) -> bool:
    """Whether there is one row, of whole units that workgroup memory can hold, and subgroups are of one size."""
    tuning = planner.tuning("matmul/gemv_bytes", TUNING)
    parts = 2 * 16 + 4  # bytes of a subgroup's sums
    return (
        product.m == 1
        and product.width % _PER_UNIT == 0
        and 0 < planner.features.subgroup_size <= tuning.workgroup_size <= planner.limits.max_invocations
        and _UNIT_BYTES * product.width // _PER_UNIT + parts * tuning.workgroup_size // planner.features.subgroup_size
        <= planner.limits.max_workgroup_bytes
        and all(isinstance(m, QuantizedMatrix) and m.weight_format.bits == 4 for m in product.matrices)
    )


def pays(planner: Planner, product: Product) -> bool:
    """Whether it is faster than gemv, which it is for many columns."""
    return (
        planner.features.byte_products
        and sum(m.rows for m in product.matrices if isinstance(m, QuantizedMatrix)) >= _LEAST_COLUMNS
    )


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
    return {"wg_size": size, "lanes": lanes, "most_units": units}


def _template(planner: Planner, call: Call) -> dict[str, Any]:
    tuning = planner.tuning("matmul/gemv_bytes", TUNING)
    return {
        **template(call),
        "unroll": tuning.unroll,
        "subgroup": planner.features.subgroup_size,
        "unit_group": call.group_units,
        "of_set": groups_of_set(planner.features.subgroup_size, call.group_units),
    }
