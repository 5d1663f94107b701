"""The flash route: attention streamed over the columns with an online softmax, for any number of new tokens.

No scores reach storage, so memory is that of the inputs and the output. Here are the sizes of its tiles, and what it
is told of where queries, keys and values lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....errors import KernelError
from ....gpu.capabilities import Features, Limits
from ...plan import Binding, Planner
from ...shapes import ceil_div
from ...values import IntLike, Scratch, Tensor
from ..call import AttentionCall, cache_bindings
from ..mask import Strides, mask_strides

MAX_VECTORS = 64  # vec4s in a head: a row of the result stays in registers


@dataclass(frozen=True)
class Tile:
    """How a workgroup of ``lanes`` * ``teams`` invocations divides its part of the scores and of the result.

    An invocation holds ``rows`` (a multiple of 4) x 4 * ``quads`` scores: of BR = teams * rows packed rows
    and BC = lanes * 4 * quads columns. With ``depth`` > 0, Q and K come through workgroup memory in chunks of that
    many vec4s of D (it divides the invocations, and these divide BR * depth and BC * depth), and V in chunks of
    columns unless ``stage_values`` is off; with 0 all are read from storage.
    """

    rows: int
    quads: int
    lanes: int
    teams: int
    depth: int
    stage_values: bool = True

    def __post_init__(self) -> None:
        rests = [self.rows % 4]
        if self.depth:
            invocations = self.lanes * self.teams
            rests += [
                invocations % self.depth,
                self.rows * self.depth % self.lanes,
                4 * self.quads * self.depth % self.teams,
            ]
        if any(rests):
            raise KernelError(f"{self} does not divide its rows and chunks evenly among its invocations")

    def variant(self, vectors: int) -> dict[str, Any]:
        """Template values for heads of ``vectors`` vec4s."""
        dims = ceil_div(vectors, self.lanes)
        stage = self.depth * (self.teams * self.rows + 1 + self.lanes * 4 * self.quads + 1)
        quads = self.lanes * self.quads  # columns of a tile / 4
        whole = (n for n in range(quads, 1, -1) if quads % n == 0 and 4 * n * self.lanes * dims <= stage)
        value_quads = next(whole, 1)
        stage_values = self.depth > 0 and self.stage_values
        return {
            **vars(self),
            "dims": dims,
            "ragged": vectors % self.lanes > 0,
            "stage_values": stage_values,
            "stage_size": max(stage, 4 * value_quads * self.lanes * dims) if stage_values else stage,
            "value_quads": value_quads,
        }

    def nbytes(self, vectors: int) -> int:
        """Bytes of workgroup memory."""
        weights = self.teams * self.rows * (self.lanes * self.quads + 1)
        maxima = self.teams * self.rows // 4 * (self.lanes + 1)
        stage = self.variant(vectors)["stage_size"] if self.depth else 0
        return 16 * (weights + maxima + stage)


# The first that fits the device; the last one fits all.
TILES = (
    Tile(rows=8, quads=1, lanes=16, teams=8, depth=8),
    Tile(rows=8, quads=1, lanes=16, teams=8, depth=4),
    Tile(rows=4, quads=1, lanes=8, teams=8, depth=8),
)
# A software adapter runs the invocations of a workgroup as SIMD lanes, one load each at a time: few of them, with all
# that fits in an invocation's hands. Narrow heads come first, so that no result takes more than 4 vec4s a row.
CPU_TILES = (
    Tile(rows=12, quads=2, lanes=4, teams=2, depth=0),
    Tile(rows=12, quads=2, lanes=8, teams=1, depth=0),
    Tile(rows=12, quads=2, lanes=16, teams=1, depth=0),
)


def choose_tile(features: Features, limits: Limits, vectors: int) -> Tile:
    """The tile for a device and heads of ``vectors`` vec4s."""
    if features.cpu:
        return next(t for t in CPU_TILES if t.lanes * 4 >= vectors)
    return next(t for t in TILES if t.nbytes(vectors) <= limits.max_workgroup_bytes)


@dataclass(frozen=True)
class Streams:
    """What one dispatch reads and writes. Strides are in vec4s, those of the mask in elements.

    Packed row r of KV head h is token r // group of query head h * group + r % group. The context has ``input_pos`` +
    ``new_columns`` columns; row r sees all, or with ``causal`` those up to ``input_pos`` + its token.
    """

    q: Tensor | Scratch  # float32
    keys: Tensor  # float32, float16, or int8 with scales, or with ``pairs``
    values: Tensor
    out: Tensor  # like q
    input_pos: IntLike
    new_columns: int
    tokens: int
    group: int
    kv_heads: int  # of all batches
    vectors: int
    scale: float
    token_stride: int  # of q and out
    head_stride: int
    column_stride: int  # of keys and values
    kv_head_stride: int
    causal: bool = True
    mask: Tensor | None = None
    heads: int = 1  # query heads of one batch, for the mask and the strides
    mask_strides: Strides = (0, 0, 0, 0)  # batch, head, token, column
    batch_strides: tuple[int, int] | None = None  # of q and out, and of keys and values; None: heads go on over batches
    pairs: tuple[Scratch, Scratch] | None = None  # scale and zero point of each column and KV head, of keys and values


def fits(planner: Planner, call: AttentionCall) -> bool:
    return call.vectors <= MAX_VECTORS and call.k_cache.dtype in ("float32", "float16", "int8")


def prepare(planner: Planner, call: AttentionCall) -> None:
    if fits(planner, call):
        _, template = _variant(planner, _streams(call))
        planner.prepare("attention/flash", template=template)


def run(planner: Planner, call: AttentionCall) -> None:
    stream(planner, _streams(call))


def stream(planner: Planner, streams: Streams) -> None:
    """Compute ``streams.out``."""
    tile, template = _variant(planner, streams)
    rows = streams.tokens * streams.group
    caches: dict[str, Binding] = {**cache_bindings("k", streams.keys), **cache_bindings("v", streams.values)}
    if streams.pairs is not None:
        caches |= dict(zip(("k_scales", "v_scales"), streams.pairs, strict=True))
    bindings: dict[str, Binding] = {"q": streams.q, "out": streams.out, "input_pos": streams.input_pos, **caches}
    strides = ("token_stride", "head_stride", "column_stride", "kv_head_stride")
    names = ("kv_heads", "vectors", *strides, "new_columns", "scale")
    params = {"rows": rows, "group_size": streams.group, **{name: getattr(streams, name) for name in names}}
    if streams.mask is not None:
        bindings["mask"] = streams.mask
        params |= {"heads": streams.heads, "mask_strides": streams.mask_strides}
    if streams.batch_strides is not None:
        own, of_keys = streams.batch_strides
        params |= {"heads": streams.heads, "batch_stride": own, "kv_batch_stride": of_keys}
    grid = (ceil_div(rows, tile.teams * tile.rows), streams.kv_heads)
    planner.dispatch("attention/flash", grid, bindings, params, template=template)


def _variant(planner: Planner, streams: Streams) -> tuple[Tile, dict[str, Any]]:
    tile = tile_of(planner, streams.vectors)
    flags = {"causal": streams.causal, "mask": streams.mask is not None, "pairs": streams.pairs is not None}
    flags["batched"] = streams.batch_strides is not None
    return tile, {**tile.variant(streams.vectors), "cache": streams.keys.dtype, **flags, "paged": False}


def tile_of(planner: Planner, vectors: int) -> Tile:
    """The tile of heads of ``vectors`` vec4s: that of the device, or the one that a test or a benchmark chose."""
    return planner.tuning("attention/flash", choose_tile(planner.features, planner.limits, vectors))


def paged_template(tile: Tile, call: AttentionCall) -> dict[str, Any]:
    """Template values over pages."""
    flags = {"causal": True, "mask": False, "pairs": False, "paged": True, "batched": False}
    return {**tile.variant(call.vectors), "cache": call.k_cache.dtype, **flags}


def _streams(call: AttentionCall) -> Streams:
    vectors = call.vectors
    return Streams(
        call.q,
        call.k_cache,
        call.v_cache,
        call.out,
        0 if call.whole else call.input_pos,
        new_columns=call.capacity if call.whole else call.length,
        tokens=call.length,
        group=call.group,
        kv_heads=call.kv_heads,
        vectors=vectors,
        scale=call.scale,
        token_stride=call.q.dims[2] * vectors,
        head_stride=vectors,
        column_stride=call.kv_heads * vectors,
        kv_head_stride=vectors,
        causal=call.causal,
        mask=call.mask,
        heads=call.q.dims[2],
        mask_strides=mask_strides(call.mask),
    )
