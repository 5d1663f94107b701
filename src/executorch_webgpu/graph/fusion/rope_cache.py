"""Rotary embedding of q and k, the write to the KV caches and attention become one operator.

Where the rotary tables are this step's rows of larger ones, the operator takes those, and the slices go away.
"""

from __future__ import annotations

from ...ops.sizes import Sizes
from ...ops.values import IntLike, SymInt, Tensor
from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, rewritten, sizes_of, without_unread

_PAIRS, _HALVES = "et_vk.apply_rotary_emb.default", "et_vk.apply_rotary_emb_hf.default"
_ATTENTION = ("llama.sdpa_with_kv_cache.default", "sdpa_with_kv_cache.default")
_SLICE, _SUM = "aten.slice_copy.Tensor", "add"


def fuse_rope_and_cache(graph: Graph) -> Graph:
    """The graph with ``rope_sdpa_with_kv_cache`` wherever only attention reads what a rotary embedding gives."""
    flow, sizes = Dataflow(graph), sizes_of(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        rope = _rope_before(call, flow)
        if rope is not None:
            calls_at |= {rope.index: [], call.index: [_fused(rope, call, flow, sizes)]}
    return without_unread(rewritten(graph, calls_at), graph, lambda call: call.name in (_SLICE, _SUM))


def _rope_before(call: OpCall, flow: Dataflow) -> OpCall | None:
    """The rotary embedding whose results are q and k of this call to attention, and nothing else."""
    if call.name not in _ATTENTION:
        return None
    q, k, v, _, _, _, _, mask, dropout, *_ = call.args
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
