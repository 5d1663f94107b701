"""A linear layer and the choice of scales for the rows that it reads become one call, whose rows are independent."""

from __future__ import annotations

from typing import Any

from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, rewritten, without_unread

CHOOSE, LINEAR = "torchao.choose_qparams_affine.default", "et_vk.linear_dq8ca_q4gsw.default"
FUSED = "et_webgpu.linear_q4gsw_dq8.default"
_INT8 = ("ASYMMETRIC", -128, 127, None)  # mapping, codes, and the smallest scale


def fuse_choices(graph: Graph) -> Graph:
    """The graph whose 8-bit activations of linear layers are quantized by the layers themselves."""
    flow = Dataflow(graph)
    fused = {call.index: [_fused(call)] for call in graph.calls if call.name == LINEAR and _is_by_rows(call, flow)}
    return without_unread(rewritten(graph, fused), graph, lambda call: call.name == CHOOSE)


def _is_by_rows(call: OpCall, flow: Dataflow) -> bool:
    """Whether a layer takes the parameters of each row of what it reads, as this operator computes them, too."""
    x, scale, zero, *_ = call.args
    choice = flow.producer(scale)
    if choice is None or choice.name != CHOOSE or not (flow.is_stateless(call) and flow.is_stateless(choice)):
        return False
    named: dict[str, Any] = choice.named
    rows = [1] * (x.rank - 1) + list(x.max_dims[-1:])
    given = named["mapping_type"], named["quant_min"], named["quant_max"], named["eps"]
    outs = [t.id for t in choice.args[-1]]
    return (
        choice.args[0] is x
        and x.dtype == "float32"
        and outs == [scale.id, zero.id]
        and (scale.dtype, zero.dtype) == ("float32", "int8")
        and list(named["block_size"]) == rows
        and given == _INT8
    )


def _fused(call: OpCall) -> OpCall:
    named = call.named
    names = ("weights", "weight_scales", "group_size", "bias")
    return make_call(FUSED, (call.args[0], *(named[name] for name in names), call.args[-1]))
