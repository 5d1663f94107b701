"""Rotary embedding of q and k, the write to the KV caches and attention become one operator.

Where the rotary tables are this step's rows of larger ones, the operator takes those, and the slices go away; so do the
gathers of rows for attention over pages, which finds those of each position itself.
"""

from __future__ import annotations

from ...ops.sizes import Sizes
from ...ops.values import IntLike, SymInt, Tensor
from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, rewritten, sizes_of, without_unread

_PAIRS, _HALVES = "et_vk.apply_rotary_emb.default", "et_vk.apply_rotary_emb_hf.default"
_ATTENTION = ("llama.sdpa_with_kv_cache.default", "sdpa_with_kv_cache.default")
_PAGED_ATTENTION = "et_webgpu.paged_sdpa.default"
_SLICE, _SUM = "aten.slice_copy.Tensor", "add"
_GATHER, _SELECT = "aten.index_select.default", "aten.select_copy.int"


def fuse_rope_and_cache(graph: Graph) -> Graph:
    """The graph with ``rope_sdpa_with_kv_cache`` wherever only attention reads what a rotary embedding gives.

    Over pages ``rope_paged_sdpa``, where the embedding's tables are rows that were gathered by position.
    """
    flow, sizes = Dataflow(graph), sizes_of(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        rope = _rope_before(call, flow)
        if rope is None:
            continue
        paged = call.name == _PAGED_ATTENTION
        fused = _fused_over_pages(rope, call, flow) if paged else _fused(rope, call, flow, sizes)
        if fused is not None:
            calls_at |= {rope.index: [], call.index: [fused]}
    gone = (_SLICE, _SUM, _GATHER, _SELECT)
    return without_unread(rewritten(graph, calls_at), graph, lambda call: call.name in gone)


def _rope_before(call: OpCall, flow: Dataflow) -> OpCall | None:
    """The rotary embedding whose results are q and k of this call to attention, and nothing else."""
    if call.name not in (*_ATTENTION, _PAGED_ATTENTION):
        return None
    q, k, v, *_ = call.args
    mask, dropout = (call.named.get(name) for name in ("attn_mask", "dropout_p"))
    rope = flow.producer(q)
    if dropout or rope is None or rope.name not in (_PAIRS, _HALVES) or rope.args[-1] != [q, k]:
        return None
    if len(rope.args[2].max_dims) != 2:  # angles of batches, for heads that come before tokens
        return None
    others = [v] if mask is None else [v, mask]
    stateless = flow.is_stateless(rope) and not any(map(flow.is_state, others))
    return rope if stateless and flow.is_inner(q) and flow.is_inner(k) else None


def _fused(rope: OpCall, attention: OpCall, flow: Dataflow, sizes: Sizes) -> OpCall:
    halves = rope.name == _HALVES
    q, k, cos, sin = rope.args[:4]
    start: IntLike = rope.args[4] if halves else 0
    rotated, _, v, k_cache, v_cache, input_pos, _, mask, _, causal, scale, out = attention.args
    if not halves:
        tables = [_whole_table(rows, q, input_pos, flow, sizes) for rows in (cos, sin)]
        if tables[0] is not None and tables[1] is not None:
            (cos, sin), start = tables, input_pos
    args = (q, k, v, cos, sin, halves, start, k_cache, v_cache, input_pos, mask, causal, scale, [rotated, out])
    return make_call("et_webgpu.rope_sdpa_with_kv_cache.default", args)


def _fused_over_pages(rope: OpCall, attention: OpCall, flow: Dataflow) -> OpCall | None:
    halves = rope.name == _HALVES
    q, k, cos, sin, *start = rope.args[:-1]
    _, _, v, k_pages, v_pages, places, block_tables, scale, out = attention.args
    tables = [_gathered_table(rows, places, flow) for rows in (cos, sin)]
    if None in tables or any(not isinstance(first, int) or first != 0 for first in start):
        return None
    args = (q, k, v, *tables, halves, k_pages, v_pages, places, block_tables, scale, out)
    return make_call("et_webgpu.rope_paged_sdpa.default", args)


def _gathered_table(rows: Tensor, places: Tensor, flow: Dataflow) -> Tensor | None:
    """The constant table whose rows at the positions that ``places`` state are these ``rows``."""
    gather = flow.producer(rows)
    if gather is None or gather.name != _GATHER or not flow.is_stateless(gather):
        return None
    table, dim, positions, _ = gather.args
    select = flow.producer(positions)
    if dim != 0 or select is None or select.name != _SELECT or not flow.is_constant(table):
        return None
    source, along, index, _ = select.args
    return table if source.id == places.id and (along, index) == (1, 0) else None


def _whole_table(rows: Tensor, q: Tensor, input_pos: IntLike, flow: Dataflow, sizes: Sizes) -> Tensor | None:
    """The constant table whose rows from ``input_pos`` on, one for each token of ``q``, are these ``rows``."""
    cut = flow.producer(rows)
    if cut is None or cut.name != _SLICE or not flow.is_stateless(cut):
        return None
    table, dim, start, end, step, _ = cut.args
    total = flow.producer(end) if isinstance(end, SymInt) else None
    if dim != 0 or step != 1 or start is None or total is None or total.name != _SUM or not flow.is_constant(table):
        return None
    tokens = sizes.of(q)[1:2]
    for first, count in (total.args[:2], total.args[1::-1]):
        if sizes.value(first) == sizes.value(start) == sizes.value(input_pos) and (sizes.value(count),) == tokens:
            return table
    return None
