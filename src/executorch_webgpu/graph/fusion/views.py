"""Views that change nothing go away, and a view of a view is a view of the tensor itself.

Exporters that know matrices only write view, linear, view. So a view before a layer that works on rows moves after it,
where it often meets its inverse; and one after a layer moves before it, if it meets another view there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...ops.rows import each_row
from ...ops.sizes import Sizes
from ...ops.values import Tensor
from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, new_ids, rewritten, sizes_of, substituted, with_calls, without_unread

VIEW = "aten.view_copy.default"


def drop_views(graph: Graph) -> Graph:
    """The graph without copies and views whose results are their inputs, in value and sizes."""
    sizes = sizes_of(graph)
    fused = _squeezes_as_views(graph, sizes)
    for move in (_below_rows, _above_rows):
        moved = move(fused, sizes_of(fused, sizes))
        fused = without_unread(_without_same(moved, sizes_of(moved, sizes)), graph, lambda call: call.op.view)
    return fused


def _squeezes_as_views(graph: Graph, sizes: Sizes) -> Graph:
    """The graph with squeezes and unsqueezes that leave at most one size open written as views."""
    flow = Dataflow(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        if call.op.view and call.args[0].rank != call.args[-1].rank and call.name != VIEW and flow.is_stateless(call):
            x, *_, out = call.args
            listed = [n if isinstance(n, int) else -1 for n in sizes.of(out)]
            # Sizes of results that do not follow from the input's are no more than a guess.
            if listed.count(-1) <= 1 and set(sizes.of(out)) <= {1, *sizes.of(x)}:
                calls_at[call.index] = [make_call(VIEW, (x, listed, out))]
    return rewritten(graph, calls_at)


def _without_same(graph: Graph, sizes: Sizes) -> Graph:
    flow = Dataflow(graph)
    same: dict[int, Tensor] = {}  # by the id of a result that went away: what it was a view of
    calls = []
    for call in graph.calls:
        new = _with_inputs(call, same)
        if new.op.view and flow.is_stateless(new):
            new = _of_its_source(new, flow, same)
            x, out = new.args[0], new.outputs[0]
            if x.dtype == out.dtype and sizes.same(x, out) and not flow.is_graph_output(out):
                same[out.id] = x
                continue
        calls.append(new)
    return with_calls(graph, calls)


def _with_inputs(call: OpCall, values: Mapping[int, Tensor]) -> OpCall:
    """The call with other tensors in the place of some that it reads."""
    if not any(tensor.id in values for tensor in call.inputs):
        return call
    args = tuple(substituted(arg, values) for arg in call.args)
    return replace(call, args=args, inputs=tuple(values.get(tensor.id, tensor) for tensor in call.inputs))


def _of_its_source(call: OpCall, flow: Dataflow, same: Mapping[int, Tensor]) -> OpCall:
    """A view, of what the view that it reads is a view of."""
    producer = flow.producer(call.args[0])
    while call.name == VIEW and producer is not None:
        source = producer.args[0]
        if not producer.op.view or not flow.is_stateless(producer) or source.dtype != call.args[0].dtype:
            break
        source = same.get(source.id, source)
        call = make_call(VIEW, (source, *call.args[1:]))
        producer = flow.producer(source)
    return call


def _below_rows(graph: Graph, sizes: Sizes) -> Graph:
    """The graph with layers on rows before the views that they read."""
    flow, ids = Dataflow(graph), new_ids(graph)
    moved: dict[int, OpCall] = {}  # by the id of the result: views after a layer
    calls = []
    for call in graph.calls:
        view = _view_of_rows(call, flow, sizes, moved)
        if view is None:
            calls.append(call)
            continue
        source, listed, _ = view.args
        out: Tensor = call.args[-1]
        (width,) = sizes.of(out)[-1:]
        rows = Tensor(next(ids), out.dtype, (*source.max_dims[:-1], out.max_dims[-1]))
        moved[out.id] = make_call(VIEW, (rows, [*listed[:-1], width], out))
        calls += [make_call(call.name, (source, *call.args[1:-1], rows)), moved[out.id]]
    return with_calls(graph, calls)


def _view_of_rows(call: OpCall, flow: Dataflow, sizes: Sizes, moved: Mapping[int, OpCall]) -> OpCall | None:
    """The view, if any, that a layer on rows reads, and whose rows are those of its input."""
    width = _width(call, flow, sizes)
    x = call.args[0]
    if width is None:
        return None
    if x.id in moved:
        return moved[x.id]
    view = flow.producer(x)
    if view is None or view.name != VIEW or not flow.is_stateless(view):
        return None
    return view if sizes.of(view.args[0])[-1:] == (width,) else None


def _above_rows(graph: Graph, sizes: Sizes) -> Graph:
    """The graph with views of layers' results before those layers, where they are views of views then."""
    flow, ids = Dataflow(graph), new_ids(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        width = _width(call, flow, sizes)
        x, out = call.args[0], call.args[-1]
        before = flow.producer(x) if width is not None else None
        if width is None or before is None or before.name != VIEW or not flow.is_inner(out):
            continue
        (view,) = flow.readers(out)
        if view.name != VIEW or not flow.is_stateless(view) or sizes.of(view.args[2])[-1:] != sizes.of(out)[-1:]:
            continue
        _, listed, result = view.args
        rows = Tensor(next(ids), x.dtype, (*result.max_dims[:-1], x.max_dims[-1]))
        moved = [
            make_call(VIEW, (x, [*listed[:-1], width], rows)),
            make_call(call.name, (rows, *call.args[1:-1], result)),
        ]
        calls_at |= {call.index: [], view.index: moved}
    return rewritten(graph, calls_at)


def _width(call: OpCall, flow: Dataflow, sizes: Sizes) -> int | None:
    """The width of the rows that a layer reads, if that and the width of its results are fixed."""
    if call.op.rows is not each_row or not flow.is_stateless(call):
        return None
    match (*sizes.of(call.args[0])[-1:], *sizes.of(call.args[-1])[-1:]):
        case (int() as width, int()):
            return width
    return None
