"""Linear layers that share their input become one call, and the RMSNorm before them a part of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ..build import Graph, OpCall
from .dataflow import Dataflow, rewritten
from .projection import Projection, merged, projection

_NORM = "et_vk.rms_norm.default"
_MOST_MATRICES = 3  # of one call: more would keep results alive that are needed much later


def fuse_norm_and_projections(graph: Graph) -> Graph:
    """The graph with ``fused_linear`` for query, key and value, for gate and up, and for any layer after a norm."""
    flow = Dataflow(graph)
    by_kind: defaultdict[object, list[tuple[OpCall, Projection]]] = defaultdict(list)
    for call in graph.calls:
        found = projection(call, flow)
        if found is not None and found.is_plain:
            by_kind[found.kind].append((call, found))
    calls_at: dict[int, list[OpCall]] = {}
    for layers in by_kind.values():
        for start in range(0, len(layers), _MOST_MATRICES):
            calls_at |= _fused(layers[start : start + _MOST_MATRICES], flow)
    return rewritten(graph, calls_at)


def _fused(layers: Sequence[tuple[OpCall, Projection]], flow: Dataflow) -> dict[int, list[OpCall]]:
    """What comes in the place of these layers, and of the norm that they alone read."""
    first = layers[0][0].index
    # The one call stands where the first of them stood.
    layers = [(call, p) for call, p in layers if all(flow.is_known_at(t, first) for t in call.inputs)]
    joined = merged([p for _, p in layers])
    calls_at: dict[int, list[OpCall]] = {call.index: [] for call, _ in layers}
    norm = flow.producer(joined.x)
    if (
        norm is not None
        and norm.name == _NORM
        and norm.args[0].dtype == norm.args[1].dtype == "float32"
        and flow.is_stateless(norm)
        and flow.is_constant(norm.args[1])
        and flow.is_inner(joined.x, len(layers))
    ):
        x, weight, eps, _ = norm.args
        joined = replace(joined, x=x, norm_weight=weight, norm_eps=eps)
        calls_at[norm.index] = []
    elif len(layers) < 2:
        return {}
    return calls_at | {first: [joined.call]}
