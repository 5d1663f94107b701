"""Rows are selected before what works on rows, not after: logits of the last token only, where no others are wanted."""

from __future__ import annotations

from ...ops.shapes import normalize_dim
from ...ops.values import Tensor
from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, new_ids, rewritten
from .shapes import LINEAR

_SELECTIONS = ("aten.select_copy.int", "aten.slice_copy.Tensor")
_ROW_WISE = LINEAR | {"et_vk.rms_norm.default"}


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
        behind = make_call(layer.name, (rows, *layer.args[1:-1], out))
        graph = rewritten(graph, {layer.index: [], call.index: [selection, behind]})


def _layer_before(call: OpCall, flow: Dataflow) -> OpCall | None:
    """The layer from whose result a call selects rows, if nobody else reads that."""
    if call.name not in _SELECTIONS:
        return None
    x, dim = call.args[:2]
    layer = flow.producer(x)
    if layer is None or layer.name not in _ROW_WISE or not flow.is_inner(x):
        return None
    in_rows = 0 <= normalize_dim(dim, x.rank) < x.rank - 1
    # A negative dimension would count from the end of the same rank: the layer keeps that.
    fits = layer.args[0].rank == x.rank and flow.is_stateless(layer) and flow.is_stateless(call)
    return layer if in_rows and fits else None
