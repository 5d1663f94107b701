"""The matrix routes: a convolution of many channels on tensor cores, by subgroup matrices of 16 x 16.

Tensor cores multiply float16 (see ``matmul/gemm_matrix``). So ``matrix`` multiplies sums of two float16 numbers
each, which is three products, exact to about 2^-21 of each term. ``matrix_f16`` multiplies rounded numbers once, and is
chosen only with ``matmul_precision="high"``. float16 has few exponents, so each image of x, and each output channel of
weights, is multiplied by a power of two that puts its largest element near 2^14, and sums are divided by both. What is
below 2^-28 of the largest element of an image loses bits. NaN and infinity give NaN.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ....errors import KernelError
from ...matmul.gemm_matrix import Tile as GemmTile
from ...matmul.gemm_matrix import has_cores
from ...plan import Binding, Planner
from ...shapes import ceil_div
from ...values import Repacked, Scratch
from .. import sums
from ..call import Convolution, window_params
from ..cut import H100, SPLITS, Cut, Estimate, Option, best_cut

Array = np.ndarray
_SPLIT_OVERRIDES = {"wg_size": 64}
_LARGEST_OVERRIDES = {"wg_size": 256}
_MOST_ROWS = 256  # of a tile
_CHUNK = 1 << 14  # elements of an image, of which the largest is found by one workgroup; of large images, more


@dataclass(frozen=True)
class Tile(GemmTile):
    """A tile of which an invocation stages one column of x, or a part of one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.columns > self.invocations or self.depth // 8 < self.invocations // self.columns:
            raise KernelError(f"{self} cannot share its columns among its invocations")
        if self.rows > _MOST_ROWS:
            raise KernelError(f"{self} has more than {_MOST_ROWS} rows")


@dataclass(frozen=True)
class Tuning:
    """Tiles, and how many workgroups may share one; ``steps``: the microseconds that each takes a step, see ``cut``.

    ``split`` is what x takes before it can be multiplied, but for reading it at ``split_rate`` bytes a microsecond.
    Layers of fewer ``channels`` go by another route.
    """

    tiles: tuple[Tile, ...] = (Tile(2, 2, 4, 4, 16), Tile(2, 2, 2, 2, 32))
    steps: tuple[float, ...] = (1.6, 1.4)
    splits: tuple[int, ...] = SPLITS[:6]
    estimate: Estimate = H100
    split: float = 6.0
    split_rate: float = 8e5
    channels: int = 32
    most_bytes: int = 1 << 28  # of x in float16


TUNING = Tuning()


def fits(planner: Planner, call: Convolution, parts: int) -> bool:
    """Whether the device has such tensor cores, and there is memory for ``parts`` float16 numbers for each of x."""
    tuning = _tuning(planner)
    plain = call.groups == 1 and not call.window.transposed and all(map(planner.is_constant, call.constants))
    if not (has_cores(planner) and plain and call.x.dtype == call.out.dtype == call.weight.dtype == "float32"):
        return False
    tiles = _tiles(planner, parts)
    most = min(planner.limits.max_binding_bytes, tuning.most_bytes)
    needs = (max(_split_bytes(call, tile, parts), _weights(call, tile, parts).nbytes) for tile in tiles)
    return bool(tiles) and max(needs) <= most


def takes(planner: Planner, call: Convolution) -> bool:
    """Whether ``call`` can go by these routes, and has enough channels to fill a tile."""
    return min(call.group_in, call.out_channels) >= _tuning(planner).channels and fits(planner, call, 2)


def estimated(planner: Planner, call: Convolution) -> float:
    """Microseconds of ``matrix``."""
    tuning = _tuning(planner)
    return tuning.split + call.x.nbytes / tuning.split_rate + _cut(planner, call, 2).microseconds


def prepare(planner: Planner, call: Convolution, parts: int) -> None:
    """Pipelines for any number of places."""
    planner.prepare("convolution/largest", overrides=_LARGEST_OVERRIDES)
    sums.prepare(planner, call)
    for tile in _same_depth(planner, call, parts):
        split = {"parts": parts, "depth": tile.depth}
        planner.prepare("convolution/split_channels", template=split, overrides=_SPLIT_OVERRIDES)
        planner.prepare("convolution/matrix", template=_template(call, tile, parts))


def run(planner: Planner, call: Convolution, parts: int) -> None:
    """``parts``: float16 numbers for each float32, 1 or 2."""
    cut = _cut(planner, call, parts)
    tile, splits = cut.tile, cut.splits
    split, inverses = _split(planner, call, tile, parts)
    channel_steps = ceil_div(call.group_in, tile.depth)
    tiles = tile.workgroups(call.out_channels, call.batch * call.places)
    out: Binding = call.out if splits == 1 else planner.scratch(4 * splits * sums.split_size(call.out.numel))
    bound: dict[str, Binding] = {
        "split": split,
        "weights": _weights(call, tile, parts),
        "out": out,
        "inverses": inverses,
        "scales": _scales(call),
    }
    planner.dispatch(
        "convolution/matrix",
        planner.grid_1d(tiles * splits, 1),
        bound if call.shift is None else bound | {"bias": call.shift},
        {
            **window_params(call.window, call.x.dims[2:], call.out.dims[2:]),
            "images": call.batch,
            "channels": call.out_channels,
            "columns": call.batch * call.places,
            "channel_steps": channel_steps,
            "row_tiles": ceil_div(call.out_channels, tile.rows),
            "tiles": tiles,
            "all_steps": call.taps * channel_steps,
            "steps": cut.steps,
            "splits": splits,
            "split_size": sums.split_size(call.out.numel),
            "finishes": int(splits == 1),
            "low": call.low,
            "high": call.high,
        },
        template=_template(call, tile, parts),
    )
    if splits > 1:
        sums.add(planner, call, out, splits)


def _split(planner: Planner, call: Convolution, tile: Tile, parts: int) -> tuple[Scratch, Scratch]:
    """x in float16, and the inverses of the powers of two of its images."""
    plane = math.prod(call.x.dims[2:])
    n = call.group_in * plane
    chunk = max(_CHUNK, ceil_div(n, _SPLIT_OVERRIDES["wg_size"]))
    chunks = ceil_div(n, chunk)
    largest, inverses = planner.scratch(4 * call.batch * chunks), planner.scratch(4 * call.batch)
    split = planner.scratch(_split_bytes(call, tile, parts, call.x.dims))
    planner.dispatch(
        "convolution/largest",
        planner.grid_1d(call.batch * chunks, 1),
        {"x": call.x, "largest": largest},
        {"n": n, "chunks": chunks, "chunk": chunk, "images": call.batch},
        overrides=_LARGEST_OVERRIDES,
    )
    steps, blocks = ceil_div(call.group_in, tile.depth), ceil_div(plane, _SPLIT_OVERRIDES["wg_size"])
    planner.dispatch(
        "convolution/split_channels",
        planner.grid_1d(call.batch * steps * blocks, 1),
        {"x": call.x, "largest": largest, "split": split, "inverses": inverses},
        {
            "images": call.batch,
            "channels": call.group_in,
            "plane": plane,
            "chunks": chunks,
            "steps": steps,
            "blocks": blocks,
        },
        overrides=_SPLIT_OVERRIDES,
        template={"parts": parts, "depth": tile.depth},
    )
    return split, inverses


def _split_bytes(call: Convolution, tile: Tile, parts: int, dims: tuple[int, ...] | None = None) -> int:
    """Of x in float16, at most or for some dims."""
    images, channels, *sizes = dims or call.x.max_dims
    return images * math.prod(sizes) * ceil_div(channels, tile.depth) * tile.depth * parts * 2


def _weights(call: Convolution, tile: Tile, parts: int) -> Repacked:
    """[taps, channel steps, output channels, parts, depth] float16, and what the last tile reads past the end."""
    outputs, inputs, taps, depth = call.out_channels, call.group_in, call.taps, tile.depth
    steps = ceil_div(inputs, depth)
    past = _MOST_ROWS * parts * depth

    def pack(array: Array) -> Array:
        rows = array.reshape(outputs, inputs, taps).astype(np.float32)
        padded = np.zeros((outputs, steps * depth, taps), np.float32)
        padded[:, :inputs] = rows * _powers(rows)[:, None, None]
        upper = (padded.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) if parts == 2 else padded
        with np.errstate(invalid="ignore"):  # of infinity
            numbers = [upper, padded - upper][:parts]
        split = np.stack([n.astype(np.float16) for n in numbers])  # [parts, outputs, steps * depth, taps]
        by_step = split.reshape(parts, outputs, steps, depth, taps).transpose(4, 2, 1, 0, 3)
        return np.concatenate([by_step.reshape(-1), np.zeros(past, np.float16)])

    layout = (
        f"{parts} float16 parts of [element of the kernel, {depth} input channels, output channel], {tile.rows} more"
    )
    return call.repacked(layout, 2 * (taps * steps * outputs * parts * depth + past), pack)


def _scales(call: Convolution) -> Repacked:
    """[output channels] float32: what sums are multiplied by."""

    def pack(array: Array) -> Array:
        return (1 / _powers(array.reshape(call.out_channels, call.group_in, call.taps))).astype(np.float32)

    return call.repacked("inverse powers of output channels", 4 * call.out_channels, pack)


def _powers(rows: Array) -> Array:
    """Of each output channel, the power of two that brings its largest weight near 2^14; float32."""
    magnitudes = np.abs(rows.astype(np.float64)).reshape(len(rows), -1)
    largest = np.where(np.isfinite(magnitudes), magnitudes, 0).max(axis=1)
    exponents = np.frexp(np.where(largest > 0, largest, 1.0))[1]
    return np.where(largest > 0, np.exp2(np.clip(14 - exponents, -100, 100)), 1.0).astype(np.float32)


def _tuning(planner: Planner) -> Tuning:
    return planner.tuning("convolution/matrix", TUNING)


def _tiles(planner: Planner, parts: int) -> list[Tile]:
    most, lanes = planner.limits.max_workgroup_bytes, planner.limits.max_invocations
    return [t for t in _tuning(planner).tiles if t.workgroup_bytes(parts) <= most and t.invocations <= lanes]


def _same_depth(planner: Planner, call: Convolution, parts: int) -> list[Tile]:
    """Tiles as deep as the one for maximum dims: weights of another depth lie in another order."""
    tiles, (images, _, *sizes) = _tiles(planner, parts), call.out.max_dims
    depth = _best(planner, tiles, call, images * math.prod(sizes)).tile.depth
    return [tile for tile in tiles if tile.depth == depth]


def _cut(planner: Planner, call: Convolution, parts: int) -> Cut[Tile]:
    return _best(planner, _same_depth(planner, call, parts), call, call.batch * call.places)


def _best(planner: Planner, tiles: list[Tile], call: Convolution, columns: int) -> Cut[Tile]:
    tuning, channels = _tuning(planner), call.out_channels
    options = [
        Option(tile, step, tile.workgroups(channels, columns), call.taps * ceil_div(call.group_in, tile.depth))
        for tile, step in zip(tuning.tiles, tuning.steps, strict=True)
        if tile in tiles
    ]
    return best_cut(options, tuning.splits, channels * columns, planner.scratch_bytes, tuning.estimate)


def _template(call: Convolution, tile: Tile, parts: int) -> dict[str, Any]:
    return {**asdict(tile), "parts": parts, "bias": call.shift_dtype}
