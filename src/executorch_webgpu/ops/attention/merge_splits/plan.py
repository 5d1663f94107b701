"""A context split into chunks, each attended to by workgroups of its own, and put together by a kernel of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...plan import Binding, Planner
from ...shapes import ceil_div
from ..call import AttentionCall


@dataclass(frozen=True)
class Reduction:
    """How a workgroup of the second kernel divides its work."""

    workgroup_size: int = 128
    lanes: int = 8  # vec4s of D that it sums

    def overrides(self, call: AttentionCall) -> dict[str, int]:
        lanes = min(self.lanes, call.vectors)
        return {"wg_size": self.workgroup_size, "lanes": lanes, "parts": self.workgroup_size // lanes}


REDUCTION = Reduction()
_ONE_SEQUENCE = {"paged": False, "listed": False}


@dataclass(frozen=True)
class Splits:
    """``count`` chunks of ``chunk`` columns hold the context of a plan; no plan of the program has over ``most``."""

    chunk: int
    count: int
    most: int

    def nbytes(self, call: AttentionCall) -> int:
        """Of the chunks' sums."""
        return 4 * call.q.numel * self.count if self.count > 1 else 0


def prepare_reduction(planner: Planner, call: AttentionCall, reduction: Reduction) -> None:
    planner.prepare("attention/merge_splits", template=_ONE_SEQUENCE, overrides=reduction.overrides(call))


def attend_split(
    planner: Planner,
    call: AttentionCall,
    splits: Splits,
    reduction: Reduction,
    kernel: str,
    row_blocks: int,
    *,
    template: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    more: Mapping[str, Binding] | None = None,
    more_params: Mapping[str, Any] | None = None,
) -> None:
    """Run ``kernel`` over every chunk and ``row_blocks`` of packed rows, and put the chunks together.

    ``more`` and ``more_params`` are what it takes besides the caches and the query.
    """
    shape = {
        "rows": call.length * call.group,
        "group_size": call.group,
        "kv_heads": call.kv_heads,
        "chunk": splits.chunk,
        "splits": splits.count,
    }
    # As much as any context needs, so that the memory stays where it is from step to step.
    sums = planner.scratch(min(planner.scratch_bytes, 4 * call.q.numel * splits.most))
    stats = planner.scratch(min(planner.scratch_bytes, 8 * call.q.numel // call.head_dim * splits.most))
    results: dict[str, Binding] = {"sums": sums, "stats": stats, "out": call.out, "input_pos": call.input_pos}
    planner.dispatch(
        kernel,
        (row_blocks * call.kv_heads, splits.count),  # the heads of a cache row lie together, so they are read together
        {"q": call.q, **call.caches, **results, **(more or {})},
        {**shape, "row_blocks": row_blocks, "scale": call.scale, **(more_params or {})},
        template=template,
        overrides=overrides,
    )
    if splits.count > 1:
        lanes = reduction.overrides(call)
        planner.dispatch(
            "attention/merge_splits",
            (shape["rows"], call.kv_heads, ceil_div(call.vectors, lanes["lanes"])),
            results,
            {**shape, "vectors": call.vectors},
            template=_ONE_SEQUENCE,
            overrides=lanes,
        )
