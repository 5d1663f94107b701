"""What is added to a linear layer's result becomes a part of its call: a bias, or the residual stream."""

from __future__ import annotations

from dataclasses import replace

from ...ops.values import Tensor
from ..build import Graph, OpCall
from .dataflow import Dataflow, rewritten, sizes_of
from .projection import Projection, projection

_ADD = "aten.add.Tensor"


def fuse_biases(graph: Graph) -> Graph:
    """The graph with added constants [N] as biases of the layers that had none."""
    flow = Dataflow(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        for layer, found, bias in _sums(call, flow):
            rows = found.weights[0].max_dims[:1]
            if found.biases == (None,) and flow.is_constant(bias) and bias.max_dims == rows and found.residual is None:
                calls_at |= {layer.index: [], call.index: [replace(found, biases=(bias,), outs=call.outputs).call]}
                break
    return rewritten(graph, calls_at)


def fuse_residuals(graph: Graph) -> Graph:
    """The graph with sums of a layer's result and a tensor of the same sizes computed by the layer."""
    flow, sizes = Dataflow(graph), sizes_of(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        for layer, found, residual in _sums(call, flow):
            if found.residual is None and layer.index not in calls_at and sizes.same(found.outs[0], residual):
                fused = replace(found, residual=residual, outs=call.outputs)
                calls_at |= {layer.index: [], call.index: [fused.call]}
                break
    return rewritten(graph, calls_at)


def _sums(call: OpCall, flow: Dataflow) -> list[tuple[OpCall, Projection, Tensor]]:
    """Layers with one result, which nothing but this sum of two float32 tensors reads, and what is added to it."""
    if call.name != _ADD or call.args[2] != 1 or not flow.is_stateless(call):
        return []
    a, b, _, out = call.args
    found = []
    for x, other in ((b, a), (a, b)):
        layer = flow.producer(x)
        linear = projection(layer, flow)
        if (
            layer is not None
            and linear is not None
            and linear.outs == (x,)
            and x is not other
            and flow.is_inner(x)
            and other.dtype == out.dtype == "float32"
        ):
            found.append((layer, linear, other))
    return found
