"""Buffers that a program replaces by a changed copy of themselves: they are changed where they lie.

The exporter makes ``cache[:, :, position] = rows`` a functional ``index_put``, and a copy of its result into the buffer
at the end. Where nothing reads what the buffer held before once it is computed, only the rows are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..ops.values import Tensor
from .build import COPY, Graph, OpCall, make_call
from .fusion.dataflow import Dataflow, substituted, with_calls


def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor, out: Tensor) -> OpCall | None:
    axis = dim + x.rank if dim < 0 else dim
    if index.rank != 1 or not 0 <= axis < x.rank or source.rank != x.rank:
        return None
    return make_call("aten.index_put_.default", (x, [*(None,) * axis, index], source, False, x))


def _same(name: str) -> Callable[..., OpCall]:
    return lambda x, *rest: make_call(name, (x, *rest[:-1], x))


# By the functional operator, whose first argument is what changes: the call that changes it in place, or None.
_IN_PLACE: Mapping[str, Callable[..., OpCall | None]] = {
    "aten.index_put.default": _same("aten.index_put_.default"),
    "aten._unsafe_index_put.default": _same("aten.index_put_.default"),
    "aten.index_copy.default": _index_copy,
    "aten.slice_scatter.default": _same("et_webgpu.slice_scatter_.default"),
    "aten.select_scatter.default": _same("et_webgpu.select_scatter_.default"),
}


def change_in_place(graph: Graph, takes: Callable[[OpCall], bool]) -> Graph:
    """``graph`` whose buffers are changed in place where that changes no result. ``takes``: whether a call can run."""
    for copy in [call for call in graph.calls if call.name == COPY and call.mutated]:
        graph = _without_copy(graph, copy, takes) or graph
    return graph


def _without_copy(graph: Graph, copy: OpCall, takes: Callable[[OpCall], bool]) -> Graph | None:
    """The graph without one copy of a result into a buffer; None where the buffer's old value is still read."""
    flow = Dataflow(graph)
    # Another buffer that becomes the same result is a copy of the first one by now.
    copy = next(c for c in graph.calls if c.name == COPY and c.mutated and c.args[-1] is copy.args[-1])
    result, buffer = copy.args[0], copy.args[-1]
    copies = [copy]
    while (before := flow.producer(result)) is not None and before.name == COPY and not before.mutated:
        if not flow.is_inner(result) or before.args[0].max_dims != result.max_dims:
            return None
        copies.append(before)
        result = before.args[0]
    chain = _changes(flow, result, buffer)
    if not chain or not isinstance(buffer, Tensor) or any(flow.is_graph_output(t) for t in (result, buffer)):
        return None
    first = chain[0].index
    of_buffer = {buffer.id, *(id for id, root in graph.prepacked.items() if root is buffer)}
    later = [call for call in graph.calls if call.index > first and call not in copies and call not in chain]
    if any(of_buffer & {t.id for t in (*call.inputs, *call.outputs)} for call in later):
        return None
    made = {call.index: _IN_PLACE[call.name](buffer, *call.args[1:]) for call in chain}
    if any(call is None or not takes(call) for call in made.values()):
        return None
    alike = {call.args[-1].id: buffer for call in chain}
    return with_calls(
        graph,
        (_with(made.get(call.index) or call, alike) for call in graph.calls if call not in copies),
    )


def _changes(flow: Dataflow, result: Any, buffer: Any) -> list[OpCall]:
    """The calls that make ``result`` of ``buffer``, each a change of what the one before left, which it alone reads."""
    chain: list[OpCall] = []
    while result is not buffer:
        producer = flow.producer(result)
        if producer is None or producer.name not in _IN_PLACE or not isinstance(result, Tensor):
            return []
        source = producer.args[0]
        others = [arg for arg in producer.inputs[1:] if arg is source or arg is buffer]
        alike = (result.dtype, result.max_dims) == (source.dtype, source.max_dims) == (buffer.dtype, buffer.max_dims)
        read_by_others = source is not buffer and (not flow.is_inner(source))
        if others or not alike or read_by_others:
            return []
        chain.insert(0, producer)
        result = source
    return chain


def _with(call: OpCall, tensors: Mapping[int, Tensor]) -> OpCall:
    """A call that reads and writes others in the place of some tensors."""
    if not any(t.id in tensors for t in (*call.inputs, *call.outputs, *call.mutated)):
        return call
    return replace(
        call,
        args=tuple(substituted(arg, tensors) for arg in call.args),
        inputs=tuple(tensors.get(t.id, t) for t in call.inputs),
        outputs=tuple(tensors.get(t.id, t) for t in call.outputs),
        mutated=tuple(tensors.get(t.id, t) for t in call.mutated),
    )
