"""silu(gate) * up, of two linear layers with one input, becomes a part of their call."""

from __future__ import annotations

from dataclasses import replace

from ...ops.sizes import Sizes
from ...ops.values import Tensor
from ..build import Graph, OpCall
from .dataflow import Dataflow, rewritten, sizes_of
from .projection import Projection, merged, projection

_MUL, _SIGMOID = "aten.mul.Tensor", "aten.sigmoid.default"


def fuse_gates(graph: Graph) -> Graph:
    """The graph with gated ``fused_linear`` in the place of two products, sigmoid and two multiplications."""
    flow, sizes = Dataflow(graph), sizes_of(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        for inner in _products_in(call, flow):
            found = _gate(call, inner, flow, sizes)
            if found is not None:
                calls_at |= found
                break
    return rewritten(graph, calls_at)


def _products_in(call: OpCall, flow: Dataflow) -> list[OpCall]:
    """Multiplications whose results this multiplication alone reads."""
    if call.name != _MUL or call.args[0] is call.args[1]:
        return []
    producers = [flow.producer(x) for x in call.args[:2] if flow.is_inner(x)]
    return [p for p in producers if p is not None and p.name == _MUL and p.args[0] is not p.args[1]]


def _gate(call: OpCall, inner: OpCall, flow: Dataflow, sizes: Sizes) -> dict[int, list[OpCall]] | None:
    """What comes in the place of ``call`` and ``inner``, which multiply gate, sigmoid(gate) and up in any order."""
    other = call.args[1] if call.args[0] is inner.args[2] else call.args[0]
    factors: list[Tensor] = [other, *inner.args[:2]]
    for sigmoid in map(flow.producer, factors):
        if sigmoid is None or sigmoid.name != _SIGMOID or not flow.is_inner(sigmoid.args[1]):
            continue
        gate = sigmoid.args[0]
        rest = [t for t in factors if t not in (gate, sigmoid.args[1])]
        if len(rest) != 1 or not flow.is_inner(gate, 2) or not flow.is_inner(rest[0]):
            continue
        layers = {p.index: p for p in (flow.producer(gate), flow.producer(rest[0])) if p is not None}
        joined = _both([projection(p, flow) for p in layers.values()], gate, rest[0])
        results = (sigmoid.args[1], inner.args[2], call.args[2])
        fits = sizes.same(gate, rest[0]) and flow.is_stateless(call) and all(t.dtype == "float32" for t in results)
        if joined is not None and fits:
            gated = replace(joined, gated=True, outs=(call.args[2],))
            gone: dict[int, list[OpCall]] = {index: [] for index in (*layers, sigmoid.index, inner.index)}
            return gone | {call.index: [gated.call]}
    return None


def _both(layers: list[Projection | None], gate: Tensor, up: Tensor) -> Projection | None:
    """One call, or two of one kind, as one whose only matrices are those of the gate and of what it gates."""
    found = [p for p in layers if p is not None]
    if len(found) != len(layers) or len({p.kind for p in found}) != 1:
        return None
    if any(p.gated or p.residual is not None for p in found):
        return None
    joined = merged(found)
    if joined.outs == (up, gate):
        joined = replace(
            joined,
            **{name: getattr(joined, name)[::-1] for name in ("weights", "scales", "biases", "outs")},
        )
    alike = joined.outs == (gate, up) and joined.weights[0].max_dims[:1] == joined.weights[1].max_dims[:1]
    return joined if alike else None
