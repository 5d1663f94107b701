"""Who writes and who reads each value of a graph, what its sizes are, and new graphs made of old ones."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...ops.sizes import Sizes
from ...ops.values import Tensor
from ..build import Graph, GraphValue, OpCall


class Dataflow:
    """Producers and readers of the values of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._producer = {value.id: call for call in graph.calls for value in call.writes}
        self._readers: defaultdict[int, list[OpCall]] = defaultdict(list)
        for call in graph.calls:
            for id in {value.id for value in (*call.reads, *call.inputs)}:
                self._readers[id].append(call)
        self._reads = Counter(value.id for call in graph.calls for value in call.reads)
        self._outputs = {value.id for value in graph.outputs}
        self._prepacked = graph.prepacked
        self._state = _state(graph)

    def producer(self, value: GraphValue) -> OpCall | None:
        """The call that writes a value; None of inputs and constants."""
        return self._producer.get(value.id)

    def readers(self, value: GraphValue) -> Sequence[OpCall]:
        """The calls that read a value, each once, in program order."""
        return self._readers[value.id]

    def is_graph_output(self, value: GraphValue) -> bool:
        """Whether a value is an output of the graph."""
        return value.id in self._outputs

    def is_state(self, tensor: Tensor) -> bool:
        """Whether a tensor is memory that the graph writes: what it holds depends on when it is read."""
        return tensor.id in self._state

    def is_private(self, tensor: Tensor) -> bool:
        """Whether a tensor is a call's result that only calls will ever see, whenever they do."""
        return tensor.id in self._producer and not self.is_graph_output(tensor) and not self.is_state(tensor)

    def is_inner(self, tensor: Tensor, reads: int = 1) -> bool:
        """Whether a tensor is a call's result that calls read exactly so often, and that nothing else will ever see.

        A call that reads it as two of its arguments reads it twice.
        """
        return self.is_private(tensor) and self._reads[tensor.id] == reads

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor holds the same whenever it is read: a constant, or what a prepack makes of one."""
        root = self.root(tensor)
        return root.constant is not None and not self.is_state(root)

    def root(self, tensor: Tensor) -> Tensor:
        """The constant that a tensor is if it is a prepacked one, else the tensor itself."""
        return self._prepacked.get(tensor.id, tensor)

    def is_stateless(self, call: OpCall) -> bool:
        """Whether a call neither reads nor writes memory that the graph writes, so that it may run at another time."""
        return not any(self.is_state(tensor) for tensor in (*call.inputs, *call.outputs))

    def is_known_at(self, value: GraphValue, index: int) -> bool:
        """Whether a value is there before the call of this index runs."""
        producer = self.producer(value)
        return producer is None or producer.index < index


def _state(graph: Graph) -> frozenset[int]:
    """Ids of tensors that calls mutate, under whatever name: a prepacked constant is the constant itself."""
    mutated = {tensor.id for call in graph.calls for tensor in call.mutated}
    mutated |= {constant.id for out, constant in graph.prepacked.items() if out in mutated}
    return frozenset(mutated | {out for out, constant in graph.prepacked.items() if constant.id in mutated})


def rewritten(graph: Graph, calls_at: Mapping[int, Sequence[OpCall]]) -> Graph:
    """``graph`` with other calls, or none, in the place of some, by index."""
    if not calls_at:
        return graph
    calls = [new for call in graph.calls for new in calls_at.get(call.index, (call,))]
    return with_calls(graph, calls)


def with_calls(graph: Graph, calls: Iterable[OpCall]) -> Graph:
    """``graph`` with these calls, which get new indices."""
    return replace(graph, calls=tuple(replace(call, index=i) for i, call in enumerate(calls)))


def sizes_of(graph: Graph, before: Sizes | None = None) -> Sizes:
    """The sizes of every tensor of a graph, as far as they follow from its calls.

    ``before``: those of a graph that this one was made of, whose calls may have said more about them.
    """
    sizes = Sizes(before)
    for call in graph.calls:
        if call.op.sizes is not None:
            sizes.follow(call.op.sizes, call.args)
    return sizes


def without_unread(graph: Graph, before: Graph, goes: Callable[[OpCall], bool]) -> Graph:
    """``graph`` but for calls that may go whose results were read ``before``, and are not any more."""
    were_read = {value.id for call in before.calls for value in call.reads}
    read = {value.id for value in graph.outputs}
    kept: list[OpCall] = []
    for call in reversed(graph.calls):
        unread = all(value.id in were_read and value.id not in read for value in call.writes)
        if unread and not call.mutated and goes(call):
            continue
        read.update(value.id for value in call.reads)
        kept.append(call)
    return with_calls(graph, reversed(kept))


def substituted(arg: Any, tensors: Mapping[int, Tensor]) -> Any:
    """An argument with other tensors, by id, in the place of some."""
    if isinstance(arg, list):
        return [substituted(item, tensors) for item in arg]
    return tensors.get(arg.id, arg) if isinstance(arg, Tensor) else arg


def new_ids(graph: Graph) -> Iterator[int]:
    """Ids that no value of the graph has."""
    used = [tensor.id for call in graph.calls for tensor in (*call.inputs, *call.outputs)]
    return itertools.count(min([0, *used, *graph.constants]) - 1, -1)
