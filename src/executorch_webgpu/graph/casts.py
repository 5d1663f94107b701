"""Casts that a program leaves to its operators, and kernels leave to the graph.

A delegate that was exported with ``force_fp16`` holds float16 everywhere. Operators that read it themselves are left
alone; around the others, results are widened and rounded again, so that every tensor of the program still holds what
float16 can hold. Constants are widened while they are uploaded. ``cat`` takes tensors of several dtypes in torch, and
brings them to that of its output first. An integer without dims takes the dtype of the integers that it meets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..ops.values import Tensor
from .build import PREPACK, Constant, Graph, OpCall, make_call
from .fusion.dataflow import Dataflow, new_ids, substituted, with_calls
from .refusal import refusal

_CAST = "dim_order_ops._to_dim_order_copy.default"
_CAT = "aten.cat.default"
HALVES = ("float16", "bfloat16")
NARROW = ("uint8", "int8", "int16")  # integers that an integer without dims may not fit into


def with_casts(graph: Graph) -> Graph:
    """``graph`` with the casts that its calls need."""
    return _with_halves_widened(_with_single_integers_narrowed(_with_cat_promoted(graph)))


def _with_cat_promoted(graph: Graph) -> Graph:
    """``graph`` whose ``cat`` calls join tensors of one dtype."""
    ids = new_ids(graph)
    calls: list[OpCall] = []
    for call in graph.calls:
        (out, *_) = call.outputs or (None,)
        if call.name == _CAT and out is not None:
            cast = {t.id: Tensor(next(ids), out.dtype, t.max_dims) for t in call.inputs if t.dtype != out.dtype}
            calls += [cast_call(t, cast[t.id]) for t in {t.id: t for t in call.inputs}.values() if t.id in cast]
            call = make_call(call.name, tuple(substituted(arg, cast) for arg in call.args)) if cast else call
        calls.append(call)
    return with_calls(graph, calls)


def _with_single_integers_narrowed(graph: Graph) -> Graph:
    """``graph`` whose integers without dims have the dtype of the integers with dims that they meet.

    torch promotes to that, so a negative one wraps beside uint8.
    """
    ids = new_ids(graph)
    calls: list[OpCall] = []
    for call in graph.calls:
        operands = [t for name in call.op.promoted if isinstance(t := call.named[name], Tensor)]
        dtypes = {t.dtype for t in operands if t.rank}
        narrow = dtypes.pop() if len(dtypes) == 1 else None
        wide = [t for t in operands if not t.rank and t.element.integer_limits is not None and t.dtype != narrow]
        if narrow in NARROW and wide:
            cast = {t.id: Tensor(next(ids), narrow, ()) for t in wide}
            calls += [cast_call(t, cast[t.id]) for t in wide]
            call = make_call(call.name, tuple(substituted(arg, cast) for arg in call.args))
        calls.append(call)
    return with_calls(graph, calls)


def _with_halves_widened(graph: Graph) -> Graph:
    """``graph`` whose calls take and give float32 where they cannot do so with floats of 16 bits."""
    if not any(t.dtype in HALVES for call in graph.calls for t in (*call.inputs, *call.outputs)):
        return graph
    return _Widening(graph).graph()


class _Widening:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._flow = Dataflow(graph)
        self._ids = new_ids(graph)
        self._constants = dict(graph.constants)
        self._wide: dict[int, Tensor] = {}  # by the id of a constant

    def graph(self) -> Graph:
        calls = [new for call in self._graph.calls for new in self._calls(call)]
        return with_calls(replace(self._graph, constants=self._constants), calls)

    def _calls(self, call: OpCall) -> Iterator[OpCall]:
        halves = [t for t in (*call.inputs, *call.outputs) if t.dtype in HALVES]
        keeps = call.name == PREPACK or any(t.dtype in HALVES for t in call.mutated)
        if not halves or keeps or refusal(call.op, call.args) is None:
            yield call
            return
        wide: dict[int, Tensor] = {}
        for tensor in call.inputs:
            if tensor.dtype in HALVES and tensor.id not in wide:
                constant = self._constant(tensor)
                wide[tensor.id] = constant or self._like(tensor)
                if constant is None:
                    yield cast_call(tensor, wide[tensor.id])
        results = {t.id: self._like(t) for t in call.outputs if t.dtype in HALVES}
        yield make_call(call.name, tuple(substituted(arg, {**wide, **results}) for arg in call.args))
        for tensor in call.outputs:
            if tensor.id in results:
                yield cast_call(results[tensor.id], tensor)

    def _like(self, tensor: Tensor) -> Tensor:
        return Tensor(next(self._ids), "float32", tensor.max_dims)

    def _constant(self, tensor: Tensor) -> Tensor | None:
        """The float32 constant with the contents of one of 16 bits that nothing writes."""
        if not self._flow.is_constant(tensor):
            return None
        root = self._flow.root(tensor)
        if root.id not in self._wide:
            assert root.constant is not None
            wide = Tensor(next(self._ids), "float32", tensor.max_dims, root.constant)
            stored = self._graph.constants[root.id]
            self._constants[wide.id] = Constant((*stored.key, "float32"), stored.data, stored.dtype)
            self._wide[root.id] = wide
        return self._wide[root.id]


def cast_call(x: Tensor, out: Tensor) -> OpCall:
    """The call that casts ``x`` to the dtype of ``out``."""
    return make_call(_CAST, (x, None, None, None, None, False, [], out))
