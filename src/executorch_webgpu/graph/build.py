"""From a delegate's VkGraph to a graph of values and operator calls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InvalidProgramError, UnsupportedProgramError
from ..format import values as plain
from ..format import vkgraph as vk
from ..ops.registry import Op, find, is_a
from ..ops.values import SymInt, Tensor

GraphValue = Tensor | SymInt
PREPACK, COPY = "et_vk.prepack.default", "aten.clone.default"
ConstantKey = tuple[object, ...]  # address, dims, data type, and what else is made of it on the way

# 64-bit types live as 32-bit ones on the device, as in ExecuTorch's own backends.
_DTYPES = {
    vk.DataType.BOOL: "bool",
    vk.DataType.UINT8: "uint8",
    vk.DataType.INT8: "int8",
    vk.DataType.INT32: "int32",
    vk.DataType.INT64: "int32",
    vk.DataType.FLOAT16: "float16",
    vk.DataType.FLOAT32: "float32",
    vk.DataType.FLOAT64: "float32",
}

# How constants lie in the file.
_FILE_DTYPES = {
    vk.DataType.BOOL: np.dtype(np.bool_),
    vk.DataType.UINT8: np.dtype(np.uint8),
    vk.DataType.INT8: np.dtype(np.int8),
    vk.DataType.INT32: np.dtype(np.int32),
    vk.DataType.INT64: np.dtype(np.int64),
    vk.DataType.FLOAT16: np.dtype(np.float16),
    vk.DataType.FLOAT32: np.dtype(np.float32),
    vk.DataType.FLOAT64: np.dtype(np.float64),
}


@dataclass(frozen=True)
class OpCall:
    """One operator call with its arguments resolved: tensors, SymInts, numbers, strings, None, or lists of them."""

    index: int
    name: str
    op: Op
    args: tuple[Any, ...]
    inputs: tuple[Tensor, ...]  # every tensor that it reads or mutates
    outputs: tuple[Tensor, ...]
    mutated: tuple[Tensor, ...]

    @property
    def named(self) -> dict[str, Any]:
        """The arguments by the operator's names for them."""
        return dict(zip(self.op.parameters, self.args, strict=True))

    @property
    def reads(self) -> tuple[GraphValue, ...]:
        return _graph_values(self.args[:-1])

    @property
    def writes(self) -> tuple[GraphValue, ...]:
        return _graph_values(self.args[-1:])


@dataclass(frozen=True)
class Graph:
    """Values and operator calls of one delegate, in program order."""

    calls: tuple[OpCall, ...]
    inputs: tuple[GraphValue, ...]
    outputs: tuple[GraphValue, ...]
    symints: tuple[SymInt, ...]
    constants: Mapping[int, Constant]  # by tensor id

    @property
    def prepacked(self) -> dict[int, Tensor]:
        """The constants that are prepacked, by the id of what they are called then."""
        return {call.outputs[0].id: call.args[0] for call in self.calls if call.name == PREPACK}


@dataclass(frozen=True)
class Constant:
    """Initial data of a tensor. Equal keys mean equal bytes: one upload serves all of them."""

    key: ConstantKey
    data: memoryview  # straight from the file; empty: zeros
    dtype: np.dtype  # as in the file; 64-bit and bool elements change on the way to the device

    def array(self, tensor: Tensor) -> np.ndarray:
        """The tensor's elements as they lie in a GPU buffer; a view of the file where that is the same."""
        if not self.data:
            return np.zeros(tensor.max_dims, tensor.element.numpy)
        count = math.prod(tensor.max_dims)
        flat = np.frombuffer(self.data, self.dtype, count)
        if self.dtype == np.int64 and count and not -(2**31) <= flat.min() <= flat.max() < 2**31:
            raise UnsupportedProgramError(f"constant {tensor} holds integers that 32 bits cannot hold")
        return flat.astype(tensor.element.numpy, copy=False).reshape(tensor.max_dims)

    def unless_zeros(self, tensor: Tensor) -> np.ndarray | None:
        """``array``, or None when all elements are 0."""
        array = self.array(tensor) if self.data else None
        return array if array is not None and array.any() else None

    @classmethod
    def zeros(cls, tensor: Tensor) -> Constant:
        """Zeros for a tensor that no file has."""
        return cls((0, tensor.max_dims, tensor.dtype), memoryview(b""), tensor.element.numpy)


def build_graph(source: vk.VkGraph) -> Graph:
    """Resolve ids to values and names to operators.

    Raises UnsupportedProgramError with every missing operator and its count, InvalidProgramError when a call's
    arguments cannot be those of its operator.
    """
    missing = missing_operators(source)
    if missing:
        raise UnsupportedProgramError(unsupported_message(missing), missing)
    values = _resolve_values(source)
    calls = _apart(_resolve_call(i, call, values) for i, call in enumerate(source.chain))
    _check_dataflow(calls, [values[i] for i in source.input_ids], [values[i] for i in source.output_ids])
    return Graph(
        calls=calls,
        inputs=tuple(_graph_value(values[i], "input") for i in source.input_ids),
        outputs=tuple(_graph_value(values[i], "output") for i in source.output_ids),
        symints=tuple(v for v in values if isinstance(v, SymInt)),
        constants={
            v.id: _constant(source, v.id, v.constant)
            for v in values
            if isinstance(v, Tensor) and v.constant is not None
        },
    )


def _apart(calls: Iterable[OpCall]) -> tuple[OpCall, ...]:
    """The calls with in-place ones taken apart: a kernel may not write what it reads.

    A buffer that a call writes as its output is state, like a KV cache. Where the same call reads it too, the result
    goes to a tensor of its own, which a copy moves into the buffer.
    """
    separated: list[OpCall] = []
    state: set[int] = set()  # tensors that are a constant's memory
    for call in calls:
        if call.name == PREPACK:
            state.update(t.id for t in call.outputs)
        call = replace(call, index=len(separated))
        (out, *more) = call.outputs or (None,)
        if out is None or more or (out.constant is None and out.id not in state) or call.name == PREPACK:
            separated.append(call)
        elif out not in call.inputs:
            separated.append(replace(call, mutated=(*call.mutated, out)))
        else:
            result = Tensor(-1 - len(separated), out.dtype, out.max_dims)
            copy = find(COPY)
            assert copy is not None
            separated.append(replace(call, args=(*call.args[:-1], result), outputs=(result,)))
            separated.append(OpCall(len(separated), COPY, copy, (result, None, out), (result,), (out,), (out,)))
    return tuple(separated)


def _check_dataflow(calls: Sequence[OpCall], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Every value is written once, by an input, a constant or a call, before anything reads it.

    Only a tensor that a call mutates may be its output too.
    """
    given = {id(v) for v in inputs}
    known = set(given)

    def require(values: Iterable[Any], reader: str) -> None:
        for value in values:
            if id(value) not in known and not (isinstance(value, Tensor) and value.constant is not None):
                raise InvalidProgramError(f"{reader} reads {value}, which nothing has written")

    for call in calls:
        require(call.reads, f"call {call.index} ({call.name})")
        for out in call.writes:
            if id(out) in given or (id(out) in known and out not in call.mutated):
                raise InvalidProgramError(f"call {call.index} ({call.name}) writes {out}, which has a value already")
            known.add(id(out))
    require(outputs, "the delegate's output")


def _constant(source: vk.VkGraph, tensor: int, index: int) -> Constant:
    described = source.values[tensor]
    assert isinstance(described, vk.VkTensor)
    data = source.constant_data(index)
    # Where the bytes lie identifies them: names and offsets are only unique within one delegate.
    address = np.frombuffer(data, np.uint8).__array_interface__["data"][0] if data.nbytes else 0
    return Constant((address, tuple(described.dims), described.datatype), data, _FILE_DTYPES[described.datatype])


def missing_operators(source: vk.VkGraph) -> dict[str, int]:
    """Operators of the delegate that are not in the registry, with their number of calls."""
    return dict(Counter(call.name for call in source.chain if find(call.name) is None))


def unsupported_message(missing: Mapping[str, int]) -> str:
    """One sentence that lists every missing operator."""
    listed = ", ".join(f"{name} ({count}×)" for name, count in sorted(missing.items()))
    return f"the program calls {len(missing)} unsupported operator{'s' * (len(missing) > 1)}: {listed}"


def _resolve_values(source: vk.VkGraph) -> list[Any]:
    values: list[Any] = [_plain_value(i, v) for i, v in enumerate(source.values)]

    def resolve_list(items: tuple[int, ...]) -> list[Any]:
        return [resolve_list(v.items) if isinstance(v := source.values[i], vk.ValueList) else values[i] for i in items]

    for i, value in enumerate(source.values):
        if isinstance(value, vk.ValueList):
            values[i] = resolve_list(value.items)
    return values


def _plain_value(index: int, value: vk.Value) -> Any:
    match value:
        case vk.VkTensor():
            if value.datatype not in _DTYPES:
                raise InvalidProgramError(f"tensor %{index} has no data type that a delegate can hold")
            constant = value.constant_id if value.constant_id >= 0 else None
            return Tensor(index, _DTYPES[value.datatype], value.dims, constant)
        case vk.SymInt():
            return SymInt(index, value.value)
        case plain.Int():
            return value.value
        case plain.Double():
            return value.value
        case plain.Bool():
            return value.value
        case plain.String():
            return value.value
        case plain.IntList() | plain.DoubleList() | plain.BoolList():
            return list(value.items)
        case _:  # Null, and ValueList, which is resolved once all others are there
            return None


def _resolve_call(index: int, call: vk.OperatorCall, values: list[Any]) -> OpCall:
    op = find(call.name)
    assert op is not None
    if len(call.args) != len(op.parameters):
        raise InvalidProgramError(
            f"call {index} ({call.name}) has {len(call.args)} arguments; the operator takes {len(op.parameters)}: "
            + ", ".join(op.parameters)
        )
    args = [values[i] for i in call.args]
    outputs = _tensors(tuple(args[-1:]))
    if not outputs and not isinstance(args[-1], SymInt):
        raise InvalidProgramError(f"call {index} ({call.name}) has no tensor or SymInt to write its result to")
    for place, (name, kind, arg) in enumerate(zip(op.parameters, op.kinds, args, strict=True)):
        if not is_a(kind, arg):
            # The exporter keeps equal numbers once: where 1.0 came first, a dim 1 is that 1.0, too.
            args[place] = _whole(arg)
            if not is_a(kind, args[place]):
                raise InvalidProgramError(f"call {index} ({call.name}): its argument {name} cannot be {arg!r}")
    return make_call(call.name, tuple(args), index)


def _whole(value: Any) -> Any:
    """The value with whole floats as integers, those in lists too."""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def make_call(name: str, args: tuple[Any, ...], index: int = 0) -> OpCall:
    """A call of an operator that there is; who writes an int8 KV cache writes its scales too."""
    op = find(name)
    assert op is not None
    by_name = dict(zip(op.parameters, args, strict=True))
    mutated = _tensors(tuple(by_name[name] for name in op.mutates))
    scales = tuple(t.scales for t in mutated if t.scales is not None)
    return OpCall(index, name, op, args, (*_tensors(args[:-1]), *scales), _tensors(args[-1:]), (*mutated, *scales))


def _graph_values(args: Iterable[Any]) -> tuple[GraphValue, ...]:
    """The tensors and SymInts among arguments, those in lists too."""
    found: list[GraphValue] = []
    for arg in args:
        if isinstance(arg, Tensor | SymInt):
            found.append(arg)
        elif isinstance(arg, list):
            found.extend(_graph_values(arg))
    return tuple(found)


def _tensors(args: Iterable[Any]) -> tuple[Tensor, ...]:
    return tuple(v for v in _graph_values(args) if isinstance(v, Tensor))


def _graph_value(value: Any, role: str) -> GraphValue:
    if not isinstance(value, Tensor | SymInt):
        raise InvalidProgramError(f"an {role} of the delegate is neither a tensor nor a SymInt")
    return value
