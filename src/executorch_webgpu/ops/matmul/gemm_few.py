"""The matrix routes for few rows: a step of many sequences has some rows of each, and takes as long as reading weights.

The numbers are those of gemm_matrix; only the work is shared in another way: workgroups have all rows and few
columns, and of small matrices several share K, so that there are enough of them to keep memory busy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ...errors import KernelError
from ..plan import Binding, Planner
from ..shapes import ceil_div
from . import gemv, splits
from .call import Call, Product, bindings, params, stored, template
from .formats import QuantizedMatrix
from .gemm_matrix import has_cores, prepare_split_rows, split_rows
from .packed import column_powers, rows_of


@dataclass(frozen=True)
class Tile:
    """``row_tiles`` x (``column_subgroups`` x ``column_tiles``) matrices, by ``k_subgroups`` times as many subgroups.

    ``depth``: along K of a subgroup in a step, a multiple of 16. All but ``ahead`` are powers of two.
    """

    row_tiles: int
    column_subgroups: int = 4
    column_tiles: int = 1
    k_subgroups: int = 2
    depth: int = 64
    ahead: int = 1  # steps that x and weights are loaded before their turn

    def __post_init__(self) -> None:
        if any(n & (n - 1) for name, n in asdict(self).items() if name != "ahead"):
            raise KernelError(f"{self} is not made of powers of two, so it cannot be staged in equal parts")
        if self.depth % 16 or self.depth * self.column_tiles < 64:
            raise KernelError(f"{self} has invocations with no weights to stage")

    @property
    def invocations(self) -> int:
        return 32 * self.column_subgroups * self.k_subgroups

    @property
    def rows(self) -> int:
        return 16 * self.row_tiles

    @property
    def columns(self) -> int:
        return 16 * self.column_tiles * self.column_subgroups

    @property
    def step(self) -> int:
        """Along K, of all subgroups."""
        return self.depth * self.k_subgroups

    def workgroup_bytes(self, parts: int) -> int:
        rows = self.rows * self.k_subgroups + self.columns * self.k_subgroups
        return parts * rows * (self.depth // 8 + 1) * 16


@dataclass(frozen=True)
class Tuning:
    """Tiles, of few rows first: the first one that has all of them, or the last one several times."""

    tiles: tuple[Tile, ...] = (
        Tile(1, k_subgroups=1, ahead=3),
        Tile(2, k_subgroups=1, ahead=3),
        Tile(4, k_subgroups=1, ahead=2),
    )
    # Those of few_f16.
    rounded: tuple[Tile, ...] = (Tile(1, ahead=3), Tile(2, k_subgroups=1, ahead=3), Tile(4, k_subgroups=1, ahead=3))
    # In place of the first ones of few_f16: for few columns, where all workgroups it takes share nothing, and for many.
    narrow: tuple[Tile, ...] = (Tile(1, 1, k_subgroups=8, ahead=2), Tile(2, 1, k_subgroups=4, ahead=2))
    narrow_columns: int = 2304  # at most
    narrow_width: int = 4096  # input features; for more, only the first of them
    wide: tuple[Tile, ...] = (Tile(1, k_subgroups=1, ahead=4), Tile(2, 8, k_subgroups=1, ahead=3))
    wide_columns: int = 65536  # at least
    workgroups: int = 264  # several workgroups share tiles until there are so many
    steps: int = 2  # of each of them, at least
    most: int = 64  # rows, for more of which gemm_matrix is faster
    most_rounded: int = 128  # the same of few_f16, unless there are many columns
    # Weights and columns for fewer of which gemv is faster, with up to eight rows; with up to four it always is, but
    # for few_f16.
    least: int = 6 << 20
    least_columns: int = 3072
    least_rounded: int = 4 << 20
    least_rounded_four: int = 32 << 20

    def of(self, parts: int) -> tuple[Tile, ...]:
        return self.rounded if parts == 1 else self.tiles

    def of_matrix(self, parts: int, columns: int, width: int) -> tuple[Tile, ...]:
        first: tuple[Tile, ...] = ()
        if parts == 1 and columns <= self.narrow_columns:
            first = self.narrow if width <= self.narrow_width else self.narrow[:1]
        elif parts == 1 and columns >= self.wide_columns:
            first = self.wide
        return (*first, *self.of(parts)[len(first) :])


TUNING = Tuning()


def fits(planner: Planner, product: Product, parts: int) -> bool:
    """Whether the device has such tensor cores, and weights are codes, whose powers load finds."""
    quantized = all(isinstance(m, QuantizedMatrix) for m in product.matrices)
    return has_cores(planner) and quantized and len(_tiles(planner, _columns(product), product.width, parts)) > 0


def pays(planner: Planner, product: Product, parts: int) -> bool:
    """Whether these routes are faster than those for any number of rows, by measurements on an H100."""
    tuning, columns = _tuning(planner), _columns(product)
    most = tuning.most if parts == 2 or columns >= tuning.wide_columns else tuning.most_rounded
    if not 1 < product.m <= most:
        return False
    weights = columns * product.width
    if product.m > gemv.MAX_ROWS:
        return True
    if parts == 2:
        return product.m > 4 and weights >= tuning.least and columns >= tuning.least_columns
    return weights >= (tuning.least_rounded if product.m > 4 else tuning.least_rounded_four)


def _columns(product: Product) -> int:
    return sum(rows_of(matrix) for matrix in product.matrices)


def prepare(planner: Planner, call: Call, parts: int) -> None:
    """Pipelines for every number of rows up to ``call.m``."""
    normed, pairs = call.norm is not None, _pairs(call, parts)
    tiles, least = _tiles(planner, 4 * call.packed.quads, call.packed.width, parts), 1
    for tile in tiles:
        most = call.m if tile is tiles[-1] else min(tile.rows, call.m)
        prepare_split_rows(planner, call.packed.width, tile, parts, normed, pairs=pairs)
        for shared in {_shares(planner, call, tile, m) > 1 for m in (least, most)}:
            planner.prepare("matmul/gemm_few", template=_template(call, tile, parts, shared=shared))
            if shared:
                splits.prepare(planner, call)
        least = most + 1
        if least > call.m:
            return


def run(planner: Planner, call: Call, parts: int) -> None:
    """``parts``: float16 numbers for each float32, 1 or 2."""
    tiles = _tiles(planner, 4 * call.packed.quads, call.packed.width, parts)
    tile = next((tile for tile in tiles if tile.rows >= call.m), tiles[-1])
    steps = ceil_div(call.packed.width, tile.step)
    sizes = (call.m, call.packed.width, steps * tile.k_subgroups)
    split = split_rows(planner, call.product.x, sizes, tile, parts, call.norm, pairs=_pairs(call, parts))
    bound: dict[str, Binding] = {name: b for name, b in bindings(call).items() if name not in ("x", "norm_weight")}
    bound |= {"split": split, "column_powers": column_powers(call.packed)}
    column_tiles = ceil_div(call.packed.quads, tile.columns // 4)
    given = params(call, column_tiles) | {"steps": steps}
    given = {name: value for name, value in given.items() if name not in ("k", "eps")}
    count = column_tiles * ceil_div(call.m, tile.rows)
    shares = _shares(planner, call, tile, call.m)
    of_sharing = partial(_template, call, tile, parts)
    splits.dispatch(planner, "matmul/gemm_few", call, (count, steps, shares), bound, given, of_sharing)


def _shares(planner: Planner, call: Call, tile: Tile, m: int) -> int:
    """Workgroups that share each tile."""
    tuning = _tuning(planner)
    if tile in tuning.narrow:
        return 1
    tiles = ceil_div(call.packed.quads, tile.columns // 4) * ceil_div(m, tile.rows)
    steps = ceil_div(call.packed.width, tile.step)
    room = planner.scratch_bytes // max(1, splits.scratch_bytes(call, 1))
    return max(1, min(tuning.workgroups // max(tiles, 1), steps // tuning.steps, room))


def _pairs(call: Call, parts: int) -> int:
    """Bits of codes that are dequantized in pairs, or 0.

    Two parts are the code times the upper 7 bits of a scale, which is exact for codes of 4 bits, and times the rest of
    the scale, of which float16 holds 11 bits more. Minima would have to be added to one of both without rounding.
    """
    layout = call.packed.weight_format
    if layout is None or (parts == 2 and (layout.mins or layout.bits == 8)):
        return 0
    return layout.bits


def _tuning(planner: Planner) -> Tuning:
    return planner.tuning("matmul/gemm_few", TUNING)


def _tiles(planner: Planner, columns: int, width: int, parts: int) -> list[Tile]:
    """Those that the device has room for, of few rows first."""
    return [t for t in _tuning(planner).of_matrix(parts, columns, width) if _has_room(planner, t, parts)]


def _has_room(planner: Planner, tile: Tile, parts: int) -> bool:
    limits = planner.limits
    return tile.workgroup_bytes(parts) <= limits.max_workgroup_bytes and tile.invocations <= limits.max_invocations


def _template(call: Call, tile: Tile, parts: int, shared: bool) -> dict[str, Any]:
    given = {name: value for name, value in template(call).items() if name not in ("norm", "vec4_x", "guarded")}
    given |= stored(call)
    given = splits.unfinished(given) if shared else given
    return {**given, **asdict(tile), "parts": parts, "shared": shared, "paired": _pairs(call, parts) > 0}
