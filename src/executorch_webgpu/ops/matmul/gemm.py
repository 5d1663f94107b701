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

    def workgroups(self, m: int, quads: int) -> int:
        return ceil_div(m, 64 * self.row_quads) * ceil_div(quads, 16 * self.column_quads)


@dataclass(frozen=True)
class Tuning:
    """Tiles, the largest first: the first one that gives enough workgroups."""

    tiles: tuple[Tile, ...] = (Tile(2, 2, 16), Tile(1, 2, 16), Tile(1, 1, 32))
    workgroups: int = 128


TUNING = Tuning()


def prepare(planner: Planner, call: Call) -> None:
    """Pipelines for any number of rows."""
    for tile in _tiles(planner.tuning("matmul/gemm", TUNING), call):
        planner.prepare("matmul/gemm", template=_template(call, tile))


def run(planner: Planner, call: Call) -> None:
    """``call`` has no norm: of rows that go through many workgroups it is done once, before."""
    tile = _tile(planner.tuning("matmul/gemm", TUNING), call)
    planner.dispatch(
        "matmul/gemm",
        planner.grid_1d(tile.workgroups(call.m, call.packed.quads), 1),
        bindings(call),
        params(call, ceil_div(call.packed.quads, 16 * tile.column_quads)),
        template=_template(call, tile),
    )


def _tiles(tuning: Tuning, call: Call) -> list[Tile]:
    return [t for t in tuning.tiles if t.column_quads % 2 == 0 or not call.gated]


def _tile(tuning: Tuning, call: Call) -> Tile:
    fitting = _tiles(tuning, call)
    enough = (t for t in fitting if t.workgroups(call.m, call.packed.quads) >= tuning.workgroups)
    return next(enough, fitting[-1])


def _template(call: Call, tile: Tile) -> dict[str, Any]:
    given = {name: value for name, value in template(call).items() if name not in ("norm", "vec4_x")}
    width = call.packed.width
    return {**given, **stored(call), **asdict(tile), "even_x": width % 2 == 0, "guarded": width % tile.depth != 0}
