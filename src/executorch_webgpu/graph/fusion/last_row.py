"""Rows are selected before what works on rows, not after: logits of the last token only, where no others are wanted."""

from __future__ import annotations

from ...ops.rows import each_row
from ...ops.shapes import normalize_dim
from ...ops.values import Tensor
from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, new_ids, rewritten


def select_early(graph: Graph) -> Graph:
    """The graph with every selection of rows as far up as nothing else reads what it selects from."""
    while True:
        flow, ids = Dataflow(graph), new_ids(graph)
        for call in graph.calls:
            layer = _layer_before(call, flow)
            if layer is not None:
                break
        else:
            return graph
        source, out = layer.args[0], call.args[-1]
        # The layer keeps all sizes but the last one, so these are those of its result, and the width of its input.
        rows = Tensor(next(ids), source.dtype, (*out.max_dims[:-1], source.max_dims[-1]))
        selection = make_call(call.name, (source, *call.args[1:-1], rows))
        after = make_call(layer.name, (rows, *layer.args[1:-1], out))
        graph = rewritten(graph, {layer.index: [], call.index: [selection, after]})


def _layer_before(call: OpCall, flow: Dataflow) -> OpCall | None:
    """The layer from whose result a call selects rows, if nothing else reads that."""
    if call.op.selects is None:
        return None
    x, dim = call.args[0], call.named[call.op.selects]
    layer = flow.producer(x)
    if call.args[-1].numel > x.numel:  # it repeats rows, so the layer would compute them several times
        return None
    if layer is None or layer.op.rows is not each_row or not flow.is_inner(x):
        return None
    in_rows = 0 <= normalize_dim(dim, x.rank) < x.rank - 1
    # A negative dimension would count from the end of the same rank: the layer keeps that.
    fits = layer.args[0].rank == x.rank and flow.is_stateless(layer) and flow.is_stateless(call)
    return layer if in_rows and fits else None
