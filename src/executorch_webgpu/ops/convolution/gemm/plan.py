"""The gemm route: a convolution as a product of matrices, in tiles of float32 that every device can hold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ...plan import Binding, Planner
from ...shapes import ceil_div
from ...values import Tensor
from .. import sums
from ..call import Convolution, window_params
from ..cut import H100, SPLITS, Cut, Estimate, Option, best_cut
from .product import Product, columns_of, packed_rows, product_of


@dataclass(frozen=True)
class Tile:
    """A workgroup of ``row_lanes`` x 256 / ``row_lanes`` invocations, each of ``row_quads`` fours of channels.

    An invocation computes them at ``column_quads`` fours of places.
    """

    row_quads: int
    column_quads: int
    depth: int  # along K at a time: 16, or 32 if the quads are 1 and the lanes 16
    row_lanes: int = 16  # or 8

    @property
    def rows(self) -> int:
        return 4 * self.row_lanes * self.row_quads

    @property
    def columns(self) -> int:
        return 4 * (256 // self.row_lanes) * self.column_quads

    def workgroups(self, product: Product) -> int:
        return product.groups * ceil_div(product.rows, self.rows) * ceil_div(product.columns, self.columns)


@dataclass(frozen=True)
class Tuning:
    """Tiles, and how many workgroups may share one; ``steps``: the microseconds that each takes a step, see ``cut``."""

    tiles: tuple[Tile, ...] = (Tile(2, 2, 16), Tile(1, 2, 16), Tile(1, 1, 16), Tile(1, 1, 16, 8))
    steps: tuple[float, ...] = (4.2, 2.6, 1.7, 1.9)
    splits: tuple[int, ...] = SPLITS
    estimate: Estimate = H100


TUNING = Tuning()


def fits(planner: Planner, call: Convolution) -> bool:
    """Whether the weights are constants that can be repacked, and there is memory for what comes between."""
    if not all(map(planner.is_constant, call.constants)):
        return False
    product, limits = _product(call), planner.limits
    most_bytes = max(product.weights.nbytes, product.table.nbytes)
    return most_bytes <= limits.max_binding_bytes and _between(call) <= planner.scratch_bytes


def _between(call: Convolution) -> int:
    """Bytes of sums that must be stored, at most: by maximum dims, so that all steps take one route."""
    if call.window.transposed:
        return 4 * call.x.max_dims[0] * call.out_channels * call.taps * math.prod(call.x.max_dims[2:])
    return 0 if call.out.dtype == "float32" else 4 * math.prod(call.out.max_dims)


def prepare(planner: Planner, call: Convolution) -> None:
    """Pipelines for smaller inputs, whose rows may not be whole fours."""
    tuning, product = planner.tuning("convolution/gemm", TUNING), _product(call)
    for tile in tuning.tiles:
        for walk in dict.fromkeys((_walk(product, tile, whole=True), _walk(product, tile, whole=False))):
            for finishes in {True, call.out.dtype == "float32"}:
                planner.prepare("convolution/gemm", template=_template(call, product, tile, walk, finishes))
    sums.prepare(planner, call)


def run(planner: Planner, call: Convolution) -> None:
    """A transposed convolution first computes what each place of x adds to the output, and then adds it."""
    product = _product(call)
    cut = _cut(planner, product)
    tile, splits = cut.tile, cut.splits
    walk = _walk(product, tile, product.places % 4 == 0)
    finishes = splits == 1 and not call.window.transposed and (call.out.dtype == "float32" or walk == "quads")
    out: Binding = call.out if finishes else planner.scratch(4 * splits * sums.split_size(product.numel))
    _multiply(planner, call, product, cut, walk, out)
    if call.window.transposed:
        sums.fold(planner, call, out, splits)
    elif not finishes:
        sums.add(planner, call, out, splits)


def estimated(planner: Planner, call: Convolution) -> float:
    """Microseconds."""
    return _cut(planner, _product(call)).microseconds


def _cut(planner: Planner, product: Product) -> Cut[Tile]:
    tuning = planner.tuning("convolution/gemm", TUNING)
    options = [
        Option(tile, step, tile.workgroups(product), ceil_div(product.k, tile.depth))
        for tile, step in zip(tuning.tiles, tuning.steps, strict=True)
    ]
    return best_cut(options, tuning.splits, product.numel, planner.scratch_bytes, tuning.estimate)


def _multiply(planner: Planner, call: Convolution, product: Product, cut: Cut[Tile], walk: str, out: Binding) -> None:
    tile = cut.tile
    template = _template(call, product, tile, walk, isinstance(out, Tensor))
    bound: dict[str, Binding] = {"x": product.x, "weights": product.weights, "out": out}
    bound |= {} if template["bias"] is None or call.shift is None else {"bias": call.shift}
    row_tiles, column_tiles = ceil_div(product.rows, tile.rows), ceil_div(product.columns, tile.columns)
    tiles = product.groups * row_tiles * column_tiles
    planner.dispatch(
        "convolution/gemm",
        planner.grid_1d(tiles * cut.splits, 1),
        bound | ({"table": product.table} if walk == "any" else {}),
        {
            **window_params(product.window, product.in_dims, product.out_dims),
            "groups": product.groups,
            "group_in": product.group_in,
            "rows": product.rows,
            "k": product.k,
            "k_rows": packed_rows(product.k),
            "row_stride": ceil_div(product.rows, 4),
            "columns": product.columns,
            "row_tiles": row_tiles,
            "column_tiles": column_tiles,
            "tiles": tiles,
            "steps": cut.steps,
            "splits": cut.splits,
            "split_size": sums.split_size(product.numel),
            "finishes": int(isinstance(out, Tensor)),
            "low": call.low,
            "high": call.high,
        },
        template=template,
    )


def _product(call: Convolution) -> Product:
    return columns_of(call) if call.window.transposed else product_of(call)


def _walk(product: Product, tile: Tile, whole: bool) -> str:
    """How x is read; ``whole``: channels are whole fours of places."""
    if whole and product.window.is_plain:
        return "quads"
    return "channels" if product.taps == 1 or product.group_in % tile.depth == 0 else "any"


def _template(call: Convolution, product: Product, tile: Tile, walk: str, finishes: bool) -> dict[str, Any]:
    return {
        **asdict(tile),
        "walk": walk,
        "x_dtype": call.x.dtype,
        "weights_dtype": product.weights_dtype,
        "out_dtype": call.out.dtype if finishes and walk == "quads" else "float32",
        "bias": None if call.window.transposed else call.shift_dtype,
    }
