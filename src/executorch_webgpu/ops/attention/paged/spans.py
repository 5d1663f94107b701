"""Spans of consecutive rows of one sequence: a workgroup for each span and KV head, by the kernels of prefill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...plan import Binding, Planner
from ...values import Scratch, Tensor
from ..call import AttentionCall
from ..flash import plan as flash
from ..flash_matrix import plan as flash_matrix
from ..paging import Paging
from ..spans.plan import Cut, SpanList


@dataclass(frozen=True)
class SpanKernel:
    """A kernel whose workgroups attend with up to ``rows`` rows of one sequence; what else it is told."""

    name: str
    rows: int
    template: Mapping[str, Any]
    params: Mapping[str, Any]

    @property
    def cut(self) -> Cut:
        """Shorter runs are left to kernels of tokens, as in attention over one cache."""
        return Cut(self.rows, flash_matrix.MIN_LENGTH)


def kernels(planner: Planner, call: AttentionCall) -> Iterator[tuple[str, SpanKernel]]:
    """Those that the device can run, by their routes."""
    if flash_matrix.possible(planner, call) and (rows := flash_matrix.tile_of(planner, call).rows // call.group):
        shape = {"group_size": call.group, "kv_heads": call.kv_heads, "tokens": 0}
        params = {**shape, "scale": call.scale * flash_matrix.LOG2_E}
        for route, exact in (("flash_matrix", True), ("flash_matrix_f16", False)):
            template = flash_matrix.template_of(planner, call, exact, paged=True)
            yield route, SpanKernel("attention/flash_matrix", rows, template, params)
    if call.vectors <= flash.MAX_VECTORS:
        tile = flash.tile_of(planner, call.vectors)
        if rows := tile.teams * tile.rows // call.group:
            yield "flash", SpanKernel("attention/flash", rows, flash.paged_template(tile, call), _streams(call))


def run(
    planner: Planner,
    call: AttentionCall,
    paging: Paging,
    kernel: SpanKernel,
    spans: SpanList,
    count: int,
    q: Tensor | Scratch,
) -> None:
    """Attend with ``q`` of up to ``count`` spans."""
    bindings: dict[str, Binding] = {"q": q, "out": call.out, **call.caches}
    planner.dispatch(
        kernel.name,
        (count, call.kv_heads),
        {**bindings, "spans": spans.entries, "block_tables": paging.block_tables},
        {**kernel.params, **paging.params},
        template=kernel.template,
    )


def _streams(call: AttentionCall) -> dict[str, Any]:
    vectors = call.vectors
    return {
        "rows": 0,
        "new_columns": 0,
        "group_size": call.group,
        "kv_heads": call.kv_heads,
        "vectors": vectors,
        "token_stride": call.q.dims[2] * vectors,
        "head_stride": vectors,
        "column_stride": call.kv_heads * vectors,
        "kv_head_stride": vectors,
        "scale": call.scale,
    }
