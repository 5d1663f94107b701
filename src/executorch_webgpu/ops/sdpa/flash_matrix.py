"""The tensor-core route: many new tokens over float16 caches, by subgroup matrices of 16 x 16.

Q goes in as the sum of two float16 matrices, which costs a tenth of the speed and keeps large scores exact. Measured on
an H100 through Dawn (causal, Hq 32, Hkv 8): D 128 at 83 TFLOP/s for 2,048 tokens and 128 for 8,192, D 64 at 58 and 83.
What moved it is in bench/NOTES.md.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..plan import Planner
from ..shapes import ceil_div
from .call import AttentionCall

SHAPE = ("f16", "f32", 16, 16, 16)  # component type, result type, m, n, k
LOG2_E = math.log2(math.e)
MIN_LENGTH = 9  # fewer tokens are decoding


@dataclass(frozen=True)
class Tile:
    """A workgroup computes 16 packed rows for each of its ``subgroups``, ``keys`` columns at a time."""

    subgroups: int = 8
    keys: int = 32

    @property
    def rows(self) -> int:
        return 16 * self.subgroups


def tile(head_dim: int) -> Tile:
    """The best of those that were measured; heads above 128 leave less workgroup memory for keys."""
    return Tile() if head_dim <= 128 else Tile(keys=16)


def fits(g: Planner, call: AttentionCall) -> bool:
    return _possible(g, call) and call.length >= MIN_LENGTH


def prepare(g: Planner, call: AttentionCall) -> None:
    if _possible(g, call) and call.q.max_dims[1] >= MIN_LENGTH:
        g.prepare("sdpa/flash_matrix", template=_template(call))


def run(g: Planner, call: AttentionCall) -> None:
    rows = call.length * call.group
    g.dispatch(
        "sdpa/flash_matrix",
        (ceil_div(rows, tile(call.head_dim).rows), call.kv_heads),
        {"q": call.q, "k_cache": call.k_cache, "v_cache": call.v_cache, "out": call.out, "input_pos": call.input_pos},
        {
            "row_count": rows,
            "group_size": call.group,
            "kv_heads": call.kv_heads,
            "tokens": call.length,
            "scale": call.scale * LOG2_E,
        },
        template=_template(call),
    )


def _possible(g: Planner, call: AttentionCall) -> bool:
    has_matrices = g.features.subgroup_matrix and SHAPE in g.features.subgroup_matrix_shapes
    fixed = g.features.subgroup_min_size == g.features.subgroup_max_size == 32
    return (
        has_matrices
        and fixed
        and g.features.f16
        and g.features.subgroups
        and call.k_cache.dtype == "float16"
        and call.head_dim % 16 == 0
        and call.head_dim <= 256
        and g.limits.max_workgroup_bytes >= 48 << 10
    )


def _template(call: AttentionCall) -> dict[str, Any]:
    return {**asdict(tile(call.head_dim)), "head_dim": call.head_dim}
