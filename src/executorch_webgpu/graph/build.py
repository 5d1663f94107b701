"""From a delegate's VkGraph to a graph of values and operator calls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidProgramError, UnsupportedProgramError
from ..format import values as plain
from ..format import vkgraph as vk
from ..ops.registry import Op, find, is_a
from ..ops.values import SymInt, Tensor

GraphValue = Tensor | SymInt

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
    def written(self) -> tuple[Tensor, ...]:
        return self.outputs + self.mutated


@dataclass(frozen=True)
class Graph:
    """Values and operator calls of one delegate, in program order."""

    calls: tuple[OpCall, ...]
    inputs: tuple[GraphValue, ...]
    outputs: tuple[GraphValue, ...]
    symints: tuple[SymInt, ...]
    constants: Mapping[int, Constant]  # by tensor id


@dataclass(frozen=True)
class Constant:
    """Initial data of a tensor. Equal keys mean equal bytes: one upload serves all of them."""

    key: str
    data: memoryview  # straight from the file
    dtype: np.dtype  # as in the file; 64-bit and bool elements change on the way to the device

    def array(self, tensor: Tensor) -> np.ndarray:
        """The tensor's elements as they lie in a GPU buffer; a view of the file where that is the same."""
        count = math.prod(tensor.max_dims)
        flat = np.frombuffer(self.data, self.dtype, count)
        return flat.astype(tensor.element.numpy, copy=False).reshape(tensor.max_dims)


def build_graph(source: vk.VkGraph) -> Graph:
    """Resolve ids to values and names to operators.

    Raises UnsupportedProgramError with every missing operator and its count, InvalidProgramError when a call's
    arguments cannot be those of its operator.
    """
    missing = missing_operators(source)
    if missing:
        raise UnsupportedProgramError(unsupported_message(missing), missing)
    values = _resolve_values(source)
    calls = tuple(_resolve_call(i, call, values) for i, call in enumerate(source.chain))
    given = {id(values[i]) for i in source.input_ids}
    for call in calls:
        for out in call.outputs:
            if id(out) in given or (out.constant is not None and out not in call.mutated):
                raise InvalidProgramError(f"call {call.index} ({call.name}) writes {out}, an input or a constant")
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


def _constant(source: vk.VkGraph, tensor: int, index: int) -> Constant:
    described = source.values[tensor]
    assert isinstance(described, vk.VkTensor)
    entry = source.constants[index]
    key = entry.named_key or f"{entry.offset}+{entry.length}"
    return Constant(f"{key}:{described.datatype.name}", source.constant_data(index), _FILE_DTYPES[described.datatype])


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
    args = tuple(values[i] for i in call.args)
    outputs = _tensors(args[-1:])
    if not outputs and not isinstance(args[-1], SymInt):
        raise InvalidProgramError(f"call {index} ({call.name}) has no tensor or SymInt to write its result to")
    for name, kind, arg in zip(op.parameters, op.kinds, args, strict=True):
        if not is_a(kind, arg):
            raise InvalidProgramError(f"call {index} ({call.name}): its argument {name} cannot be {arg!r}")
    by_name = dict(zip(op.parameters, args, strict=True))
    mutated = _tensors(tuple(by_name[name] for name in op.mutates))
    return OpCall(index, call.name, op, args, _tensors(args[:-1]), outputs, mutated)


def _tensors(args: tuple[Any, ...] | list[Any]) -> tuple[Tensor, ...]:
    found: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, list):
            found.extend(_tensors(arg))
    return tuple(found)


def _graph_value(value: Any, role: str) -> GraphValue:
    if not isinstance(value, Tensor | SymInt):
        raise InvalidProgramError(f"an {role} of the delegate is neither a tensor nor a SymInt")
    return value
