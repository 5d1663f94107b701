"""Buffers whose new values a delegate hands out, since the exporter was not asked to write them in place.

Without the compile option ``alias_buffer_mutations`` the new value of every mutated buffer is one more output of the
delegate, before all others, and nothing says of which constant. Where only one constant can be meant, the graph is made
to write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..ops.values import Tensor
from .build import COPY, Graph, OpCall, make_call
from .fusion.dataflow import Dataflow, new_ids, with_calls


def written_back(graph: Graph, results: Sequence[Tensor]) -> Graph | None:
    """``graph`` that stores ``results``, outputs of it, as new values of its buffers; they stay outputs.

    None where it is not certain which buffers are meant.
    """
    buffers = _buffers(graph, results)
    if buffers is None:
        return None
    state = {root.id for root in buffers} | {id for id, root in graph.prepacked.items() if root in buffers}
    ids = new_ids(graph)
    last: list[OpCall] = []
    outputs = []
    for value in graph.outputs:
        if isinstance(value, Tensor) and value.id in state:  # the old value, which must be taken before the new one
            kept = Tensor(next(ids), value.dtype, value.max_dims)
            last.append(make_call(COPY, (value, None, kept)))
            value = kept
        outputs.append(value)
    for result, root in zip(results, buffers, strict=True):
        copy = make_call(COPY, (result, None, root))
        last.append(replace(copy, mutated=(*copy.mutated, root)))
    return with_calls(replace(graph, outputs=tuple(outputs)), [*graph.calls, *last])


def _buffers(graph: Graph, results: Sequence[Tensor]) -> list[Tensor] | None:
    """The constant that each result is the new value of, if there is one way only to say so."""
    flow = Dataflow(graph)
    constants = [
        tensor
        for tensor in {t.id: t for call in graph.calls for t in call.inputs if t.constant is not None}.values()
        if not flow.is_state(tensor)
    ]
    chosen = []
    for result in results:
        alike = [c for c in constants if (c.dtype, c.max_dims) == (result.dtype, result.max_dims)]
        if len(alike) > 1 and result.dtype == "int32":
            alike = [c for c in _counters(flow, result, alike) if c not in chosen]
        if len(alike) != 1 or alike[0] in chosen:
            return None
        chosen += alike
    return chosen


def _counters(flow: Dataflow, result: Tensor, alike: Sequence[Tensor]) -> list[Tensor]:
    """The integer buffer of which ``result`` is made in place, as a counter is: ``buffer.add_(number)``.

    Numbers are constants, too. But an operator in place takes its buffer first, and the exporter puts buffers before
    numbers, while no parameter is an integer.
    """
    reached: set[int] = set()
    waiting = [result]
    while waiting:
        tensor = waiting.pop()
        if tensor.id in reached:
            continue
        reached.add(tensor.id)
        producer = flow.producer(tensor)
        waiting += producer.inputs if producer is not None else ()
    first: Tensor = result
    while (producer := flow.producer(first)) is not None and producer.inputs:
        first = producer.inputs[0]
    read = sorted((c for c in alike if c.id in reached), key=lambda c: c.id)
    return read[:1] if read and read[0] is first else []
