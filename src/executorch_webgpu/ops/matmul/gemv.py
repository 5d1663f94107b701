"""The gemv route: up to 8 rows of x share one read of packed weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ..plan import Planner
from ..shapes import ceil_div
from .call import Call, bindings, params, template

MAX_ROWS = 8  # of x in one dispatch; for more, other workgroups read the weights again
_ROW_COUNTS = (1, 4, 8)  # each one a pipeline; other numbers take the next larger one


@dataclass(frozen=True)
class Tuning:
    """What the kernel's speed depends on, not its result. Powers of two."""

    workgroup_size: int = 256
    lanes: int = 32  # of a team, at least
    quads: int = 2  # fours of columns of a team
    unroll: int = 4  # units of each quad that a lane loads before it uses them
    loads: int = 16  # vec4s of weights and x that a lane has loaded at a time, at most
    sums: int = 16  # vec4s of sums of a lane, at most
    invocations: int = 1 << 17  # small matrices get fewer quads and more lanes a team, until there are so many
    workgroups: int = 256  # small matrices get smaller workgroups, until there are so many
    workgroup_bytes: int = 8 << 10  # of workgroup memory
    subgroups: bool = True  # add by them, where all of them are of one size


TUNING = Tuning()


@dataclass(frozen=True)
class Shape:
    """What the choice of a variant depends on."""

    rows: int  # of x
    quads: int  # fours of columns
    units: int  # of each
    vectors: int  # vec4s of weights in a unit
    x_quads: int  # vec4s of x that a unit is multiplied with
    norm: bool
    gated: bool


@dataclass(frozen=True)
class Variant:
    """The kernel for one shape: how a workgroup divides its work."""

    rows: int
    workgroup_size: int
    lanes: int
    quads: int
    unroll: int
    subgroup_size: int  # of the smallest subgroup; 1: without subgroups

    @property
    def teams(self) -> int:
        return self.workgroup_size // self.lanes

    def template(self, call: Call) -> dict[str, Any]:
        return {
            **template(call),
            "rows": self.rows,
            "team_quads": self.quads,
            "unroll": self.unroll,
            "subgroups": self.subgroup_size > 1,
        }

    @property
    def overrides(self) -> dict[str, int]:
        size = self.workgroup_size
        return {"wg_size": size, "lanes": self.lanes, "partial_count": size // self.subgroup_size}


def prepare(planner: Planner, call: Call) -> None:
    """Pipelines for every number of rows up to ``call.m``."""
    for rows in _ROW_COUNTS[: _ROW_COUNTS.index(_rows(call.m)) + 1]:
        variant = _variant(planner, call, rows)
        planner.prepare("matmul/gemv", template=variant.template(call), overrides=variant.overrides)


def run(planner: Planner, call: Call) -> None:
    variant = _variant(planner, call, _rows(call.m))
    column_tiles = ceil_div(call.packed.quads, variant.quads * variant.teams)
    planner.dispatch(
        "matmul/gemv",
        planner.grid_1d(ceil_div(call.m, variant.rows) * column_tiles, 1),
        bindings(call),
        params(call, column_tiles),
        overrides=variant.overrides,
        template=variant.template(call),
    )


def _rows(m: int) -> int:
    return next((rows for rows in _ROW_COUNTS if rows >= m), MAX_ROWS)


def _variant(planner: Planner, call: Call, rows: int) -> Variant:
    features = planner.features
    fixed = features.subgroups and features.subgroup_min_size == features.subgroup_max_size
    packed = call.packed
    return choose_variant(
        planner.tuning("matmul/gemv", TUNING),
        Shape(
            rows,
            packed.quads,
            packed.units,
            4 if packed.weight_format is None else 1,
            packed.per_unit // 4,
            call.norm is not None,
            call.gated,
        ),
        features.subgroup_min_size if fixed else 1,
        min(planner.limits.max_invocations, planner.limits.max_workgroup_size[0]),
    )


@cache
def choose_variant(tuning: Tuning, shape: Shape, subgroup_size: int, max_invocations: int) -> Variant:
    """The kernel for a shape; ``subgroup_size`` 1: the device has none, or of several sizes."""
    size = min(tuning.workgroup_size, max_invocations)
    subgroup_size = subgroup_size if tuning.subgroups and subgroup_size <= size else 1
    lanes = min(max(tuning.lanes, subgroup_size), size)
    least = 2 if shape.gated else 1
    quads = max(least, min(tuning.quads, tuning.sums // shape.rows))
    while quads > least and ceil_div(shape.quads, quads) * lanes < tuning.invocations:
        quads //= 2
    while lanes < shape.units and 2 * lanes <= size and ceil_div(shape.quads, quads) * lanes < tuning.invocations:
        lanes *= 2
    loads = quads * shape.vectors + shape.rows * shape.x_quads  # of one unit
    unrolls = [n for n in (8, 4, 2, 1) if n <= tuning.unroll and (n == 1 or n * loads <= tuning.loads)]
    unroll = min(unrolls, key=lambda n: ceil_div(shape.units, n * lanes) * n)  # the fewest units past the last one
    variant = Variant(shape.rows, size, lanes, quads, unroll, subgroup_size)
    parts = shape.rows * quads + (ceil_div(shape.rows, 4) if shape.norm else 0)
    while variant.workgroup_size > max(32, subgroup_size) and (
        16 * parts * variant.workgroup_size // subgroup_size > tuning.workgroup_bytes
        or (variant.teams > 1 and ceil_div(shape.quads, quads * variant.teams) < tuning.workgroups)
    ):
        half = variant.workgroup_size // 2
        variant = replace(variant, workgroup_size=half, lanes=min(lanes, half))
    return variant
