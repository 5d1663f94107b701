"""Writes the graph of one segment: calls for its operations, and the graphs of its delegates taken in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...format import program_schema as schema
from ...ops.registry import Op, is_a
from ...ops.values import SymInt, Tensor
from ..build import COPY, Constant, Graph, GraphValue, OpCall, make_call
from .delegates import DelegateArguments
from .instructions import Arg, Cell, Flow, Operation, Value
from .placement import COPIES, stated_arguments
from .values import GraphValues, graph_dtype

Delegates = Sequence[tuple[Graph, DelegateArguments]]

CAST = "dim_order_ops._to_dim_order_copy.default"
EXPAND = "aten.expand_copy.default"
ADD = "add"  # of live integers
SELECT = "et_vk.select_as_symint.default"


def host_read_inputs(graph: Graph) -> frozenset[int]:
    """Positions of the inputs that must be on the host before a step: live integers, and where they come from."""
    read = {tensor.id for call in graph.calls if call.name == SELECT for tensor in call.inputs}
    return frozenset(i for i, v in enumerate(graph.inputs) if isinstance(v, SymInt) or v.id in read)


class GraphWriter:
    """The graph of one segment. ``kept``: the buffers that it keeps on the device, by what they hold at first.

    ``delegates``: the method's, with their graphs.
    """

    def __init__(self, values: GraphValues, delegates: Delegates, flow: Flow, kept: Mapping[Value, Cell]) -> None:
        self._values = values
        self._delegates = delegates
        self._calls: list[OpCall] = []
        self._inputs: dict[int, tuple[GraphValue, Arg]] = {}  # by id
        self._known: set[int] = set()  # ids that something sets
        self._constants: dict[int, Constant] = {}
        self._buffers: dict[Value, Tensor] = {}
        self._inlined: set[int] = set()  # delegates
        for first, cell in kept.items():
            self._buffers[first] = self._buffer(flow.state[cell])
            values.bind(first, self._buffers[first])

    def add(self, operation: Operation, op: Op | None) -> None:
        """Add the calls of an operation, which follow those of all before it."""
        if operation.delegate is not None:
            self._inline(operation)
        elif operation.name in COPIES:
            self._copy(operation)
        else:
            assert op is not None
            self._call(operation, op)

    def finish(
        self, wanted: Sequence[Value], ends: Mapping[Value, Arg]
    ) -> tuple[Graph, tuple[Arg, ...], tuple[Value, ...]]:
        """The graph, what its inputs are given, and what its outputs are: ``wanted``.

        ``ends``: what each kept buffer holds when the call ends.
        """
        outputs = [self._values.of(value) for value in wanted]
        for first, last in ends.items():
            buffer = self._buffers[first]
            result = self._values.of(last) if isinstance(last, Value) else buffer
            if result is not buffer and isinstance(result, Tensor):
                copy = make_call(COPY, (self._cast(result, buffer.dtype), None, buffer))
                self._calls.append(replace(copy, mutated=(*copy.mutated, buffer)))
        for value in outputs:
            self._require(value)
        calls = tuple(replace(call, index=i) for i, call in enumerate(self._calls))
        inputs = tuple(value for value, _ in self._inputs.values())
        symints = {v.id: v for v in (*inputs, *outputs) if isinstance(v, SymInt)}
        symints |= {v.id: v for call in calls for v in (*call.reads, *call.writes) if isinstance(v, SymInt)}
        constants = {**self._values.constants(calls), **self._constants}
        graph = Graph(calls, inputs, tuple(outputs), tuple(symints.values()), constants)
        return graph, tuple(given for _, given in self._inputs.values()), tuple(wanted)

    # -- operations ---------------------------------------------------------------------------------------------------

    def _call(self, operation: Operation, op: Op) -> None:
        given = list(operation.args)
        for position, after in operation.mutated:
            self._values.bind(after, self._written(given[position]))
            given[position] = after
        args = self._values.args(stated_arguments(op, given))
        for value in operation.inputs:
            if not any(operation.args[position] is value for position, _ in operation.mutated):
                self._given(value)
        outs = [self._values.of(value) for value in operation.outputs]
        several = op.kinds[-1] not in (Tensor, SymInt)
        self._append(make_call(op.name, tuple(_as_kinds(op, [*args, outs if several else outs[0]]))))

    def _written(self, value: Value) -> Tensor:
        """The memory that a call writes in the place of ``value``: a kept buffer, or a copy."""
        tensor = self._values.of(value)
        assert isinstance(tensor, Tensor)
        if tensor in self._buffers.values():
            return tensor
        self._given(value)
        copy = self._values.like(tensor)
        self._append(make_call(COPY, (tensor, None, copy)))
        return copy

    def _copy(self, operation: Operation) -> None:
        """The second argument in the dims and dtype of the first: what ``copy_`` stores there."""
        target, source = operation.args[:2]
        (out,) = operation.outputs
        self._given(source)
        result, made = self._values.of(source), self._values.of(out)
        assert isinstance(result, Tensor) and isinstance(made, Tensor)
        result = self._cast(result, made.dtype)
        if target.tensor.sizes != source.tensor.sizes:
            self._append(make_call(EXPAND, (result, list(made.max_dims), False, made)))
        else:
            self._append(make_call(COPY, (result, None, made)))

    def _inline(self, operation: Operation) -> None:
        """The calls of a delegate's graph, over the values of this one."""
        assert operation.delegate is not None
        graph, its = self._delegates[operation.delegate]
        offset = self._values.offsets[operation.delegate]
        mapped: dict[int, GraphValue] = {}
        if operation.delegate in self._inlined:  # a second call, on what the first one has left in its buffers
            mapped = {t.id: _shifted(t, offset) for t in _constants(graph)}
            offset = self._values.new_offset(operation.delegate)
        for theirs, arg in zip(graph.inputs, operation.args, strict=True):
            mapped[theirs.id] = self._as_input(theirs, arg, offset)
        last: list[OpCall] = []
        for position, value in zip(its.outputs, operation.outputs, strict=True):
            last += self._bind_output(graph.outputs[position], value, mapped, offset)
        for call in graph.calls:
            self._append(_renamed(call, mapped, offset))
        for call in last:
            self._append(call)
        if operation.delegate not in self._inlined:
            self._inlined.add(operation.delegate)
            self._constants |= {id + offset: constant for id, constant in graph.constants.items()}
            self._known |= {id + offset for id in graph.constants}

    def _as_input(self, theirs: GraphValue, arg: Arg, offset: int) -> GraphValue:
        """What a delegate's input is here."""
        if not isinstance(arg, Value) or (isinstance(theirs, SymInt) and arg.tensor is not None):
            symint = _shifted(theirs, offset)
            self._inputs[symint.id] = (symint, arg)
            self._known.add(symint.id)
            return symint
        found = self._values.find(arg)
        if found is None and not arg.constant:
            natural = graph_dtype(arg.tensor) if arg.tensor is not None else None
            if isinstance(theirs, SymInt) or natural in (None, theirs.dtype):  # None: the host narrows it
                self._values.bind(arg, _shifted(theirs, offset))
        ours = self._given(arg)
        if isinstance(ours, SymInt) or isinstance(theirs, SymInt):
            return ours
        return self._cast(ours, theirs.dtype)

    def _bind_output(
        self, theirs: GraphValue, value: Value, mapped: dict[int, GraphValue], offset: int
    ) -> list[OpCall]:
        """Let a delegate's output be ``value`` here; the calls that make it one of the program's dtype."""
        bound = self._values.find(value)
        if bound is not None and theirs.id not in mapped and _alike(theirs, bound):
            mapped[theirs.id] = bound
            return []
        result = mapped.setdefault(theirs.id, _shifted(theirs, offset))
        natural = graph_dtype(value.tensor) if value.tensor is not None else None
        if bound is None and (isinstance(result, SymInt) or natural in (None, result.dtype)):
            self._values.bind(value, result)
            return []
        made = self._values.of(value)
        if isinstance(made, SymInt) or isinstance(result, SymInt):
            return [make_call(ADD, (result, 0, made))]
        return [_cast_call(result, made) if made.dtype != result.dtype else make_call(COPY, (result, None, made))]

    # -- values -------------------------------------------------------------------------------------------------------

    def _given(self, value: Value) -> GraphValue:
        """What a value is here: an input, unless a call sets it or the file holds it."""
        found = self._values.of(value)
        if found.id not in self._known and not value.constant:
            self._inputs[found.id] = (found, value)
            self._known.add(found.id)
        return found

    def _require(self, value: GraphValue) -> None:
        assert value.id in self._known or (isinstance(value, Tensor) and value.constant is not None), value

    def _cast(self, tensor: Tensor, dtype: str) -> Tensor:
        """A tensor in another dtype."""
        if tensor.dtype == dtype:
            return tensor
        cast = Tensor(self._values.new_id(), dtype, tensor.max_dims)
        self._append(_cast_call(tensor, cast))
        return cast

    def _buffer(self, described: schema.Tensor) -> Tensor:
        """A buffer that the graph keeps, with what the program says that it begins with."""
        id, dtype = self._values.new_id(), graph_dtype(described)
        assert dtype is not None
        self._constants[id] = self._values.first_contents(described, id)
        self._known.add(id)
        return Tensor(id, dtype, tuple(described.sizes), id)

    def _append(self, call: OpCall) -> None:
        self._calls.append(call)
        self._known |= {value.id for value in (*call.writes, *call.mutated)}


def _constants(graph: Graph) -> Iterable[Tensor]:
    """The tensors of a graph that hold constants, once each."""
    return {t.id: t for call in graph.calls for t in (*call.inputs, *call.outputs) if t.constant is not None}.values()


def _alike(theirs: GraphValue, ours: GraphValue) -> bool:
    """Whether a result of a delegate can be one of ours as it is."""
    if isinstance(theirs, SymInt) or isinstance(ours, SymInt):
        return isinstance(theirs, SymInt) and isinstance(ours, SymInt)
    return theirs.constant is None and (theirs.dtype, theirs.max_dims) == (ours.dtype, ours.max_dims)


def _cast_call(x: Tensor, out: Tensor) -> OpCall:
    return make_call(CAST, (x, None, None, None, None, False, [], out))


def _shifted(value: GraphValue, offset: int) -> GraphValue:
    """A delegate's value under an id that no other one has."""
    if not offset:
        return value
    if isinstance(value, SymInt):
        return SymInt(value.id + offset, value.value)
    scales = _shifted(value.scales, offset) if value.scales is not None else None
    assert scales is None or isinstance(scales, Tensor)
    return Tensor(value.id + offset, value.dtype, value.max_dims, value.constant, scales)


def _renamed(call: OpCall, mapped: dict[int, GraphValue], offset: int) -> OpCall:
    """A delegate's call over the values of the segment; ``mapped`` takes those that are new."""

    def rename(arg: Any) -> Any:
        if isinstance(arg, list):
            return [rename(item) for item in arg]
        if not isinstance(arg, Tensor | SymInt):
            return arg
        if arg.id not in mapped:
            mapped[arg.id] = _shifted(arg, offset)
        return mapped[arg.id]

    def all_of(values: Iterable[Tensor]) -> tuple[Tensor, ...]:
        return tuple(rename(value) for value in values)

    return replace(
        call,
        args=tuple(map(rename, call.args)),
        inputs=all_of(call.inputs),
        outputs=all_of(call.outputs),
        mutated=all_of(call.mutated),
    )


def _as_kinds(op: Op, args: Sequence[Any]) -> list[Any]:
    """Arguments with whole floats as integers where the operator takes integers only."""
    return [
        int(arg) if isinstance(arg, float) and arg.is_integer() and not is_a(kind, arg) else arg
        for kind, arg in zip(op.kinds, args, strict=True)
    ]
