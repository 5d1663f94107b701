"""Runs of decoder layers in a graph, and the one dispatch that takes their place for a single token.

The calls stay as they are, and so do their plans for several tokens. While one token is computed by the persistent
route, they check their arguments and run nothing, but for the last one of the run, which dispatches all of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..errors import Error
from ..ops.attention import rotated_call
from ..ops.decoder_layers.persistent import plan as persistent
from ..ops.fused_linear import fused_product
from ..ops.plan import Derived, Dispatch, Planner, Planning
from ..ops.values import Tensor
from .build import Graph, OpCall

T = TypeVar("T")
FAMILY, ROUTE = "decoder_layers", "persistent"
_LINEAR, _ATTENTION = "et_webgpu.fused_linear.default", "et_webgpu.rope_sdpa_with_kv_cache.default"


@dataclass(frozen=True)
class LayerCalls:
    """The calls of one layer, by index: of norm and projections, attention, output, gate and the way back."""

    qkv: int
    attention: int
    output: int
    gated: int
    down: int


class Run:
    """Layers of a graph that follow one another. ``calls``: all that compute nothing but these, views included.

    ``workgroups``: by how many one token is computed in one dispatch; 0: by the calls.
    """

    def __init__(self, layers: Sequence[LayerCalls], calls: Sequence[int], x: Tensor, out: Tensor) -> None:
        self.layers = layers
        self.calls = frozenset(calls)
        self.last = max(self.calls)
        self.x, self.out = x, out
        self.workgroups = 0
        self._live: list[persistent.Layer] = []

    def prepare(self, planning: Planning, graph: Graph, args: Sequence[tuple[Any, ...]]) -> bool:
        """Whether the route is chosen. ``args``: of all calls of the graph, live."""
        try:
            self._live = [_live_layer(planning, graph, args, layer) for layer in self.layers]
        except Error:  # of the largest sizes; whether calls are ever so large is for their own plans to say
            if FAMILY in planning.routes:
                raise
            return False
        planner = Planner(planning, building=True, may_alias=False)
        self.x, self.out = args[self.layers[0].qkv][0], args[self.layers[-1].down][-1][0]
        can = persistent.fits(planner, self._live)
        first = can and persistent.pays(planner, self._live)
        routes = {ROUTE: can, "calls": True} if first else {"calls": True, ROUTE: can}
        return planner.choose(FAMILY, routes) == ROUTE

    def build(self, planner: Planner) -> None:
        """What load must know, as a part of the plan of the last call."""
        persistent.prepare(planner, self._live)
        planner.result.held.append(self.x)

    def most_workgroups(self, planning: Planning) -> int:
        """As many as pay."""
        return persistent.tuning_of(Planner(planning, building=False, may_alias=False), self._live[0]).workgroups

    @property
    def is_one_token(self) -> bool:
        return self.x.numel == self._live[0].qkv.width

    def replace(self, planner: Planner, index: int) -> None:
        """Make of the plan of a call what it does while one dispatch computes all of them."""
        plan = planner.result
        plan.route = ROUTE
        plan.dispatches.clear()
        plan.derived[:] = map(_checked, plan.derived)
        if index == self.last:
            persistent.run(planner, self._live, self.x, self.out, self.workgroups)

    def dispatches(self, planning: Planning) -> list[Dispatch]:
        """Those of a single workgroup."""
        planner = Planner(planning, building=False, may_alias=False)
        persistent.run(planner, self._live, self.x, self.out, 1)
        return planner.result.dispatches


def _live_layer(
    planning: Planning, graph: Graph, args: Sequence[tuple[Any, ...]], layer: LayerCalls
) -> persistent.Layer:
    """The calls of a layer as their operators read them. Raises what they raise."""

    def checked(check: Callable[..., T], index: int) -> T:
        planner = Planner(planning, building=True, may_alias=False)
        planner.begin(graph.calls[index].op, args[index])
        return check(planner, *args[index])

    return persistent.Layer(
        checked(fused_product, layer.qkv),
        checked(rotated_call, layer.attention),
        checked(fused_product, layer.output),
        checked(fused_product, layer.gated),
        checked(fused_product, layer.down),
    )


def _checked(derived: Derived) -> Derived:
    """Watches nothing, but refuses what the other one refuses."""
    key = None if derived.key is None else ("checked", derived.key)
    return replace(derived, compute=lambda: derived.compute() and None, value=None, key=key, shared=None)


def find_runs(graph: Graph) -> list[Run]:
    """The longest runs of layers, each of which reads what the one before has made, and nothing else of it."""
    finder = _Finder(graph)
    starts = {call.args[0].id: call for call in graph.calls if call.name == _LINEAR and len(call.args[-1]) == 3}
    runs: list[Run] = []
    done: set[int] = set()
    for call in list(starts.values()):
        if call.index in done:
            continue
        layers: list[LayerCalls] = []
        calls: list[int] = []
        x, at = call.args[0], call.args[0]
        while (start := starts.get(at.id)) is not None and start.index not in done:
            found = finder.layer(start)
            if found is None or (layers and not finder.is_read_by(at, [found[0].qkv, found[0].output])):
                break
            layers.append(found[0])
            calls += found[1]
            done.add(start.index)
            at = graph.calls[found[0].down].args[-1][0]
        if layers:
            runs.append(Run(layers, calls, x, at))
    return runs


class _Finder:
    """Who reads what in a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._returned = {value.id for value in graph.outputs}
        readers: defaultdict[int, list[int]] = defaultdict(list)
        for call in graph.calls:
            for id in {tensor.id for tensor in call.inputs}:
                readers[id].append(call.index)
        self._readers: Mapping[int, list[int]] = readers

    def is_read_by(self, tensor: Tensor, calls: Sequence[int]) -> bool:
        """Whether these calls read a tensor, and nothing else does."""
        return tensor.id not in self._returned and sorted(self._readers.get(tensor.id, [])) == sorted(calls)

    def layer(self, qkv: OpCall) -> tuple[LayerCalls, list[int]] | None:
        """The layer that begins with these projections, and all of its calls."""
        calls = [qkv.index]
        heads = [self._view(out, calls) for out in qkv.args[-1]]
        attention = self._only_reader(heads[0], _ATTENTION)
        if attention is None or [t.id for t in attention.args[:3]] != [t.id for t in heads]:
            return None
        if not all(self.is_read_by(t, [attention.index]) for t in heads):
            return None
        rotated, attended = attention.args[-1]
        output = self._only_reader(self._view(attended, calls), _LINEAR)
        if not self.is_read_by(rotated, []) or output is None or not _adds(output, qkv.args[0]):
            return None
        middle = output.args[-1][0]
        gated = next((c for c in self._linears(middle) if c.named["gated"]), None)
        down = None if gated is None else self._only_reader(gated.args[-1][0], _LINEAR)
        if gated is None or down is None or not _adds(down, middle):
            return None
        if not self.is_read_by(middle, [gated.index, down.index]):
            return None
        normed = [call.named["norm_weight"] is not None for call in (qkv, output, gated, down)]
        if normed != [True, False, True, False] or qkv.named["gated"]:
            return None
        found = LayerCalls(qkv.index, attention.index, output.index, gated.index, down.index)
        return found, [*calls, attention.index, output.index, gated.index, down.index]

    def _view(self, tensor: Tensor, calls: list[int]) -> Tensor:
        """What the views of a tensor make of it, where it has no other reader; they are added to ``calls``."""
        while (reader := self._only_reader(tensor)) is not None and reader.op.view and len(reader.inputs) == 1:
            calls.append(reader.index)
            tensor = reader.outputs[0]
        return tensor

    def _only_reader(self, tensor: Tensor, name: str | None = None) -> OpCall | None:
        readers = self._readers.get(tensor.id, [])
        if len(readers) != 1 or tensor.id in self._returned:
            return None
        call = self._graph.calls[readers[0]]
        return call if name in (None, call.name) else None

    def _linears(self, tensor: Tensor) -> list[OpCall]:
        calls = (self._graph.calls[index] for index in self._readers.get(tensor.id, []))
        return [call for call in calls if call.name == _LINEAR and call.args[0].id == tensor.id]


def _adds(call: OpCall, residual: Tensor) -> bool:
    """Whether a layer of one matrix adds this to its result."""
    named = call.named
    return len(named["weights"]) == 1 and named["residual"] is not None and named["residual"].id == residual.id
