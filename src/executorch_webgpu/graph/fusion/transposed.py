"""Products with the transpose of a constant, which a program without delegates has in the place of linear layers."""

from __future__ import annotations

from ...ops.shapes import normalize_dim
from ...ops.values import Tensor
from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, rewritten, without_unread

_LINEAR, _MM, _ADDMM = "aten.linear.default", "aten.mm.default", "aten.addmm.default"
_PERMUTES = ("aten.permute_copy.default", "aten.permute.default")
_TRANSPOSE, _T = "aten.transpose_copy.int", "aten.t_copy.default"


def compose_layers(graph: Graph) -> Graph:
    """The graph with ``mm`` and ``addmm`` by the transpose of a constant matrix as linear layers."""
    flow = Dataflow(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        if call.name == _MM:
            (x, b, out), bias = call.args, None
        elif call.name == _ADDMM and call.args[3] == call.args[4] == 1:
            bias, x, b, _, _, out = call.args
        else:
            continue
        weight = _transposed(flow.producer(b), flow)
        tensors = [t for t in (x, weight, bias, out) if t is not None]
        if weight is None or any(t.dtype != "float32" for t in tensors) or not flow.is_stateless(call):
            continue
        if bias is None or bias.max_dims == weight.max_dims[:1]:
            calls_at[call.index] = [make_call(_LINEAR, (x, weight, bias, out))]
    return without_unread(rewritten(graph, calls_at), graph, lambda call: _transposed(call, flow) is not None)


def _transposed(call: OpCall | None, flow: Dataflow) -> Tensor | None:
    """The constant matrix that a call transposes."""
    if call is None or not call.inputs:
        return None
    x = call.inputs[0]
    if x.rank != 2 or not flow.is_constant(x):
        return None
    if call.name in _PERMUTES:
        swaps = [normalize_dim(dim, 2) for dim in call.args[1]] == [1, 0]
    elif call.name == _TRANSPOSE:
        swaps = normalize_dim(call.args[1], 2) != normalize_dim(call.args[2], 2)
    else:
        swaps = call.name == _T
    return x if swaps else None
