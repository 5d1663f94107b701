"""A context split into chunks, each attended to by workgroups of its own, and put together by flash_reduce.wgsl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..plan import Planner
from ..shapes import ceil_div
from ..values import Scratch
from .call import AttentionCall


@dataclass(frozen=True)
class Reduction:
    """How a workgroup of the second kernel divides its work."""

    workgroup_size: int = 128
    lanes: int = 8  # vec4s of D that it sums

    def overrides(self, call: AttentionCall) -> dict[str, int]:
        lanes = min(self.lanes, call.vectors)
        return {"wg_size": self.workgroup_size, "lanes": lanes, "parts": self.workgroup_size // lanes}


REDUCTION = Reduction()


@dataclass(frozen=True)
class Splits:
    """``count`` chunks of ``chunk`` columns hold the context of a plan; no plan of the program has over ``most``."""

    chunk: int
    count: int
    most: int

    def nbytes(self, call: AttentionCall) -> int:
        """Of the chunks' sums."""
        return 4 * call.q.numel * self.count if self.count > 1 else 0

    def params(self, call: AttentionCall) -> dict[str, Any]:
        rows = call.length * call.group
        return {
            "rows": rows,
            "group_size": call.group,
            "kv_heads": call.kv_heads,
            "chunk": self.chunk,
            "splits": self.count,
        }

    def scratch(self, g: Planner, call: AttentionCall) -> dict[str, Scratch]:
        """What the chunks leave: as much as any context needs, so that it stays where it is from step to step."""
        sums = g.scratch(min(g.scratch_bytes, 4 * call.q.numel * self.most))
        stats = g.scratch(min(g.scratch_bytes, 8 * call.q.numel // call.head_dim * self.most))
        return {"sums": sums, "stats": stats}


def prepare_reduction(g: Planner, call: AttentionCall, reduction: Reduction) -> None:
    g.prepare("sdpa/flash_reduce", overrides=reduction.overrides(call))


def reduce(g: Planner, call: AttentionCall, splits: Splits, scratch: dict[str, Scratch], reduction: Reduction) -> None:
    """Put the chunks together, unless the only one wrote the result itself."""
    if splits.count == 1:
        return
    overrides = reduction.overrides(call)
    g.dispatch(
        "sdpa/flash_reduce",
        (call.length * call.group, call.kv_heads, ceil_div(call.vectors, overrides["lanes"])),
        {**scratch, "out": call.out, "input_pos": call.input_pos},
        {**splits.params(call), "vectors": call.vectors},
        overrides=overrides,
    )
