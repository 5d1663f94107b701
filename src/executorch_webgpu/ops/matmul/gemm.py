"""The gemm route: many rows of x times packed weights, in tiles of float32 that every device can hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..plan import Planner
from ..shapes import ceil_div
from .call import Call, bindings, params, stored, template


@dataclass(frozen=True)
class Tile:
    """A workgroup of 16 x 16 invocations computes 64 * ``row_quads`` rows x 64 * ``column_quads`` columns.

    ``depth``: along K at a time, 8, 16 or 32; two tiles of float32 of that depth must fit workgroup memory.
    """

    row_quads: int
    column_quads: int
    depth: int

    @property
    def workgroup_bytes(self) -> int:
        return 256 * self.depth * (self.row_quads + self.column_quads)

    def workgroups(self, m: int, quads: int) -> int:
        return ceil_div(m, 64 * self.row_quads) * ceil_div(quads, 16 * self.column_quads)


@dataclass(frozen=True)
class Tuning:
    """Tiles, the largest first: the first one that gives enough workgroups.

    ``wide`` takes the place of two of the first, where an invocation has registers for its 128 sums, and the busiest
    of ``processors``, an H100's, would have as many of the first to compute as of these.
    """

    tiles: tuple[Tile, ...] = (Tile(2, 2, 16), Tile(1, 2, 16), Tile(1, 1, 32))
    workgroups: int = 128
    wide: Tile | None = Tile(2, 4, 16)
    processors: int = 132


TUNING = Tuning()


def prepare(planner: Planner, call: Call) -> None:
    """Pipelines for any number of rows."""
    for tile in _tiles(planner, call):
        planner.prepare("matmul/gemm", template=_template(call, tile))


def run(planner: Planner, call: Call) -> None:
    """``call`` has no norm: of rows that go through many workgroups it is done once, before."""
    tile = _tile(planner, call)
    planner.dispatch(
        "matmul/gemm",
        planner.grid_1d(tile.workgroups(call.m, call.packed.quads), 1),
        bindings(call),
        params(call, ceil_div(call.packed.quads, 16 * tile.column_quads)),
        template=_template(call, tile),
    )


def _tuning(planner: Planner) -> Tuning:
    return planner.tuning("matmul/gemm", TUNING)


def _tiles(planner: Planner, call: Call) -> list[Tile]:
    """Those that may be chosen for some number of rows."""
    wide = _tuning(planner).wide
    return [*([wide] if wide and _has_registers(planner, wide) else []), *_narrow(planner, call)]


def _narrow(planner: Planner, call: Call) -> list[Tile]:
    return [t for t in _tuning(planner).tiles if t.column_quads % 2 == 0 or not call.gated]


def _has_registers(planner: Planner, wide: Tile) -> bool:
    """Nothing tells how many there are. NVIDIA's are enough: 32 lanes in a subgroup and 48 KiB for a workgroup."""
    features, limits = planner.features, planner.limits
    most = limits.max_workgroup_bytes
    of_32 = features.subgroup_min_size == features.subgroup_max_size == 32
    return not features.cpu and of_32 and most >= max(48 << 10, wide.workgroup_bytes)


def _tile(planner: Planner, call: Call) -> Tile:
    tuning, narrow = _tuning(planner), _narrow(planner, call)

    def workgroups(tile: Tile) -> int:
        return tile.workgroups(call.m, call.packed.quads)

    if tuning.wide and _has_registers(planner, tuning.wide):
        busiest = [ceil_div(workgroups(tile), tuning.processors) for tile in (tuning.wide, narrow[0])]
        if 2 * busiest[0] <= busiest[1]:
            return tuning.wide
    return next((tile for tile in narrow if workgroups(tile) >= tuning.workgroups), narrow[-1])


def _template(call: Call, tile: Tile) -> dict[str, Any]:
    given = {name: value for name, value in template(call).items() if name not in ("norm", "vec4_x")}
    width = call.packed.width
    return {**given, **stored(call), **asdict(tile), "even_x": width % 2 == 0, "guarded": width % tile.depth != 0}
