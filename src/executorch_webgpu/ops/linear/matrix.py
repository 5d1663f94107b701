"""The matrix routes of mm, bmm and addmm: products of two matrices that the program computes, on tensor cores.

Both are split to float16 first, the rows of ``a`` as those of linear layers (``matmul/gemm_matrix``), and ``b`` like
the channels of a convolution (``convolution/matrix``), with a power of two for each batch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..convolution.cut import H100, Cut, Estimate, Option, best_cut
from ..matmul import gemm_matrix
from ..matmul.gemm_matrix import LEAST, Tile
from ..plan import Binding, Planner
from ..shapes import ceil_div
from ..values import Scratch, Tensor

PARTS = {"matrix": 2, "matrix_f16": 1}  # float16 numbers for each float32
_CHUNK = 1 << 14  # elements of a batch of b, of which the largest is found by one workgroup; of large ones, more
_SPLIT_OVERRIDES = {"wg_size": 64}
_LARGEST_OVERRIDES = {"wg_size": 256}


@dataclass(frozen=True)
class Sizes:
    """Of ``batches`` products [m, k] x [k, n]."""

    batches: int
    m: int
    n: int
    k: int

    @property
    def numel(self) -> int:
        """Of both operands."""
        return self.batches * self.k * (self.m + self.n)


@dataclass(frozen=True)
class Tuning:
    """Microseconds: ``step`` of a tile of 128 x 128 along 16 of K, ``split`` of what comes before, but for its bytes.

    ``split_rate``: bytes of operands a microsecond. Smaller tiles take ``small`` of the time for each product.
    """

    step: float = 1.6
    small: float = 1.75
    split: float = 12.0
    split_rate: float = 8e5
    float_step: float = 4.2  # of the route without tensor cores
    estimate: Estimate = H100
    most_bytes: int = 1 << 28  # of an operand in float16


TUNING = Tuning()


def fits(planner: Planner, largest: Sizes, parts: int) -> bool:
    """Whether the device has tensor cores, and memory for both operands in float16."""
    tiles = gemm_matrix.tiles_of(planner, parts)
    if not gemm_matrix.has_cores(planner) or not tiles or min(asdict(largest).values()) == 0:
        return False
    most = min(planner.limits.max_binding_bytes, _tuning(planner).most_bytes)
    rows = max(largest.batches * (largest.m + tiles[0].rows), largest.batches * largest.n)
    return max(rows * (parts * 2 * (largest.k + tile.depth) + 16) for tile in tiles) <= most


def pays(planner: Planner, sizes: Sizes, parts: int) -> bool:
    """Whether it should be faster than float32 without tensor cores."""
    if min(sizes.m, sizes.n, sizes.k) < LEAST:
        return False
    tuning = _tuning(planner)
    split = tuning.split + 4 * sizes.numel / tuning.split_rate
    without = best_cut(
        [
            Option((), step, sizes.batches * ceil_div(sizes.m, side) * ceil_div(sizes.n, side), ceil_div(sizes.k, 16))
            for side, step in ((128, tuning.float_step), (64, tuning.float_step * tuning.small / 4))
        ],
        (1,),
        sizes.batches * sizes.m * sizes.n,
        planner.scratch_bytes,
        tuning.estimate,
    )
    return split + _cut(planner, sizes, parts).microseconds < without.microseconds


def prepare(planner: Planner, largest: Sizes, parts: int, bias: bool) -> None:
    """Pipelines for any sizes up to ``largest``."""
    planner.prepare("convolution/largest", overrides=_LARGEST_OVERRIDES)
    for tile in gemm_matrix.tiles_of(planner, parts):
        for k in (4, 1):
            gemm_matrix.prepare_split_rows(planner, k, tile, parts, largest_k=largest.k)
        template = {"parts": parts, "depth": tile.depth}
        planner.prepare("convolution/split_channels", template=template, overrides=_SPLIT_OVERRIDES)
        for fours in (True, False):
            planner.prepare("matmul/gemm_matrix", template=_template(tile, parts, bias, fours))


def run(
    planner: Planner,
    sizes: Sizes,
    largest: Sizes,
    operands: tuple[Tensor, Tensor],
    out: Tensor,
    bias: Tensor | None,
    parts: int,
) -> None:
    """``out`` = ``operands``' product plus ``bias``, one row."""
    a, b = operands
    tile = _cut(planner, sizes, parts).tile
    steps = ceil_div(sizes.k, tile.depth)
    rows = (sizes.batches * sizes.m, sizes.k, steps)
    split = gemm_matrix.split_rows(planner, a, rows, tile, parts, largest_k=largest.k)
    weights, inverses = _split_columns(planner, sizes, b, tile, parts)
    bound: dict[str, Binding] = {"split": split, "weights": weights, "inverses": inverses, "out0": out}
    quads = ceil_div(sizes.n, 4)
    tiles = tile.workgroups(sizes.m, 4 * quads)
    planner.dispatch(
        "matmul/gemm_matrix",
        planner.grid_1d(sizes.batches * tiles, 1),
        bound if bias is None else bound | {"bias": bias},
        {
            "m": sizes.m,
            "steps": steps,
            "batches": sizes.batches,
            "batch_tiles": tiles,
            "quads": quads,
            "column_tiles": ceil_div(quads, tile.columns // 4),
            "ends": (quads, 0, 0, 0),
            "widths": (sizes.n, 0, 0, 0),
        },
        template=_template(tile, parts, bias is not None, sizes.n % 4 == 0),
    )


def _split_columns(planner: Planner, sizes: Sizes, b: Tensor, tile: Tile, parts: int) -> tuple[Scratch, Scratch]:
    """[steps, batches, n, parts, depth] float16 of ``b``, and the inverses of the powers of two of its batches."""
    n = sizes.k * sizes.n
    chunk = max(_CHUNK, ceil_div(n, _SPLIT_OVERRIDES["wg_size"]))
    chunks = ceil_div(n, chunk)
    steps, blocks = ceil_div(sizes.k, tile.depth), ceil_div(sizes.n, _SPLIT_OVERRIDES["wg_size"])
    largest, inverses = planner.scratch(4 * sizes.batches * chunks), planner.scratch(4 * sizes.batches)
    split = planner.scratch(sizes.batches * sizes.n * steps * tile.depth * parts * 2)
    planner.dispatch(
        "convolution/largest",
        planner.grid_1d(sizes.batches * chunks, 1),
        {"x": b, "largest": largest},
        {"n": n, "chunks": chunks, "chunk": chunk, "images": sizes.batches},
        overrides=_LARGEST_OVERRIDES,
    )
    planner.dispatch(
        "convolution/split_channels",
        planner.grid_1d(sizes.batches * steps * blocks, 1),
        {"x": b, "largest": largest, "split": split, "inverses": inverses},
        {
            "images": sizes.batches,
            "channels": sizes.k,
            "plane": sizes.n,
            "chunks": chunks,
            "steps": steps,
            "blocks": blocks,
        },
        overrides=_SPLIT_OVERRIDES,
        template={"parts": parts, "depth": tile.depth},
    )
    return split, inverses


def _cut(planner: Planner, sizes: Sizes, parts: int) -> Cut[Tile]:
    """The fastest tile; none is shared."""
    tuning, tiles = _tuning(planner), gemm_matrix.tiles_of(planner, parts)
    quads = ceil_div(sizes.n, 4)

    def step(tile: Tile) -> float:
        part = tile.rows * tile.columns * tile.depth / (128 * 128 * 16)
        return tuning.step * part * (tuning.small if tile.rows * tile.columns < 128 * 128 else 1)

    options = [
        Option(tile, step(tile), sizes.batches * tile.workgroups(sizes.m, 4 * quads), ceil_div(sizes.k, tile.depth))
        for tile in tiles
    ]
    return best_cut(options, (1,), sizes.batches * sizes.m * sizes.n, planner.scratch_bytes, tuning.estimate)


def _tuning(planner: Planner) -> Tuning:
    return planner.tuning("linear/matrix", TUNING)


def _template(tile: Tile, parts: int, bias: bool, fours: bool) -> dict[str, Any]:
    floats = {"bits": 32, "zero_point": 0, "scales": None, "group_shift": True}
    return {
        **floats,
        **asdict(tile),
        "parts": parts,
        "split_weights": True,
        "paired": False,
        "shared": False,
        "x_powers": False,
        "out_parts": 0,
        "out_pairs": 0,
        "outputs": 1,
        "gated": False,
        "bias": bias,
        "residual": False,
        "fours": fours,
    }
