"""The tensor-core routes: many new tokens over float16 or int8 caches, by subgroup matrices of 16 x 16.

By ``flash_matrix`` Q goes in as the sum of two float16 matrices, which keeps large scores exact; ``flash_matrix_f16``
rounds it to one, as ``matmul_precision="high"`` allows. Probabilities, and the values of an int8 cache, are rounded to
float16 by both. What moved the speed is in bench/NOTES.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..plan import Planner
from ..shapes import ceil_div
from .call import AttentionCall
from .matrix import LOG2_E, has_matrices, load_width

MIN_LENGTH = 9  # fewer tokens are decoding
WORKGROUP_BYTES = 48 << 10


@dataclass(frozen=True)
class Tile:
    """A workgroup of ``subgroups``: ``split`` of them, each with its part of D, have 16 packed rows.

    ``keys`` columns are computed at a time.
    """

    subgroups: int = 8
    keys: int = 32
    split: int = 1

    @property
    def rows(self) -> int:
        return 16 * self.subgroups // self.split


# The best of those that were measured, by the largest head. Above 128 one subgroup's registers cannot hold all sums.
TILES = {64: Tile(subgroups=4), 128: Tile(), 256: Tile(keys=16, split=2)}


def tile(head_dim: int) -> Tile:
    """The tile for heads of ``head_dim``, at most 256."""
    return next(tile for largest, tile in TILES.items() if head_dim <= largest)


def fits(g: Planner, call: AttentionCall) -> bool:
    return _possible(g, call) and call.length >= MIN_LENGTH


def prepare(g: Planner, call: AttentionCall, exact: bool) -> None:
    if _possible(g, call) and call.q.max_dims[1] >= MIN_LENGTH and exact == (g.matmul_precision == "highest"):
        g.prepare("sdpa/flash_matrix", template=template(call, exact))


def run(g: Planner, call: AttentionCall, exact: bool) -> None:
    """``exact``: as the sum of two matrices."""
    rows = call.length * call.group
    g.dispatch(
        "sdpa/flash_matrix",
        (ceil_div(rows, tile(call.head_dim).rows), call.kv_heads),
        {
            "q": call.q,
            "k_cache": call.k_cache,
            "v_cache": call.v_cache,
            "out": call.out,
            "input_pos": call.input_pos,
            **call.scales,
        },
        {
            "row_count": rows,
            "group_size": call.group,
            "kv_heads": call.kv_heads,
            "tokens": call.length,
            "scale": call.scale * LOG2_E,
        },
        template=template(call, exact),
    )


def _possible(g: Planner, call: AttentionCall) -> bool:
    return (
        has_matrices(g)
        and call.k_cache.dtype in ("float16", "int8")
        and call.head_dim <= max(TILES)
        and g.limits.max_workgroup_bytes >= WORKGROUP_BYTES
    )


def template(call: AttentionCall, exact: bool) -> dict[str, Any]:
    """Template values of the kernel for a call."""
    return {
        "exact": exact,
        **asdict(tile(call.head_dim)),
        "cache": call.k_cache.dtype,
        "head_dim": call.head_dim,
        "width": load_width(call),
    }
