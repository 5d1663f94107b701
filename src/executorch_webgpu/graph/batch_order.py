"""Dimensions that a batch turns and turns back: programs keep heads before tokens, and pages keep them after these."""

from __future__ import annotations

from dataclasses import dataclass

from ..ops.shapes import normalize_dim
from ..ops.sizes import Size, Sizes
from ..ops.values import Tensor
from .batch_draft import EXPAND, PERMUTE, VIEW
from .build import Graph, OpCall, make_call
from .fusion.dataflow import Dataflow, sizes_of, substituted, with_calls


@dataclass(frozen=True)
class _Turned:
    """A tensor that holds ``source`` with its dimensions but those of 1 in this ``order``."""

    source: Tensor
    order: tuple[int, ...]


def without_turns(graph: Graph) -> Graph:
    """``graph`` in which what was turned back is a view of what it was before, and repetitions are no longer equal.

    Calls whose results nothing reads then stay.
    """
    flow, sizes = Dataflow(graph), sizes_of(graph)
    turned: dict[int, _Turned] = {}
    same: dict[int, Tensor] = {}
    calls: list[OpCall] = []
    for call in graph.calls:
        if same and any(t.id in same for t in call.inputs):
            call = make_call(call.name, tuple(substituted(arg, same) for arg in call.args))
        x, out = call.args[0] if call.args else None, call.args[-1]
        if isinstance(x, Tensor) and isinstance(out, Tensor) and flow.is_stateless(call):
            if call.name == EXPAND and sizes.same(x, out) and not flow.is_graph_output(out):
                same[out.id] = x
                continue
            found = _follow(call, x, out, turned.get(x.id) or _Turned(x, tuple(_kept(sizes, x))), sizes)
            if found is not None:
                turned[out.id] = found
                call = _as_view(call, found, out, sizes) or call
        calls.append(call)
    return with_calls(graph, calls)


def _kept(sizes: Sizes, x: Tensor) -> list[int]:
    """The dimensions that are not always 1."""
    return [axis for axis, n in enumerate(sizes.of(x)) if n != 1]


def _follow(call: OpCall, x: Tensor, out: Tensor, before: _Turned, sizes: Sizes) -> _Turned | None:
    if call.name == PERMUTE:
        places = {axis: place for place, axis in enumerate(_kept(sizes, x))}
        axes = [normalize_dim(axis, x.rank) for axis in call.named["order"]]
        return _Turned(before.source, tuple(before.order[places[axis]] for axis in axes if axis in places))
    alike = [n for n in sizes.of(x) if n != 1] == [n for n in sizes.of(out) if n != 1]
    return before if call.op.view and x.dtype == out.dtype and alike else None


def _as_view(call: OpCall, turned: _Turned, out: Tensor, sizes: Sizes) -> OpCall | None:
    """A view of the source, if the dimensions are in its order again."""
    source, dims = turned.source, sizes.of(out)
    open_sizes: list[Size] = [n for n in dims if not isinstance(n, int)]
    in_order = turned.order == tuple(_kept(sizes, source))
    if not in_order or source is call.args[0] or len(open_sizes) > 1 or source.dtype != out.dtype:
        return None
    return make_call(VIEW, (source, [n if isinstance(n, int) else -1 for n in dims], out))
