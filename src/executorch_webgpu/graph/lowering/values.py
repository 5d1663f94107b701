"""The tensors and live integers of graphs that a method's values are, and the contents of those that the file holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import UnsupportedProgramError
from ...format import program_schema as schema
from ...format import values as plain
from ...format.pte import ProgramFile
from ...ops.values import ELEMENT_TYPES, SymInt, Tensor
from ...portable.dtypes import dtype_name, numpy_dtype
from ...portable.elements import file_elements
from ..build import Constant, Graph, GraphValue, OpCall
from .instructions import Arg, Value

_DTYPES = {
    schema.ScalarType.BOOL: "bool",
    schema.ScalarType.BYTE: "uint8",
    schema.ScalarType.CHAR: "int8",
    schema.ScalarType.SHORT: "int16",
    schema.ScalarType.INT: "int32",
    schema.ScalarType.LONG: "int32",
    schema.ScalarType.HALF: "float16",
    schema.ScalarType.BFLOAT16: "bfloat16",
    schema.ScalarType.FLOAT: "float32",
}


def graph_dtype(tensor: schema.Tensor) -> str | None:
    """What the elements of a tensor are on the device; None if it does not compute with them."""
    dtype = _DTYPES.get(tensor.scalar_type)
    return dtype if dtype in ELEMENT_TYPES else None


class GraphValues:
    """What the values of a method are in its graphs: the same in all of them.

    ``graphs``: those of the delegates, whose own ids stay as they are in the first one. ``narrow``: the float64 values
    that are float32 here.
    """

    def __init__(
        self,
        file: ProgramFile,
        plan: schema.ExecutionPlan,
        graphs: Sequence[Graph],
        narrow: frozenset[Value] = frozenset(),
    ) -> None:
        self._narrow = narrow
        self._file = file
        self._plan = plan
        self._values: dict[Value, GraphValue] = {}
        self._arrays: dict[Value, np.ndarray] = {}
        self._extents = [_extent(graph) for graph in graphs]
        self._next = self._extents[0][1] if graphs else 0
        # What is added to the ids of each delegate.
        self.offsets = [self.new_offset(number) if number else 0 for number in range(len(graphs))]

    def new_offset(self, delegate: int) -> int:
        """What makes new ids of those of a delegate, which is taken in once more."""
        below, above = self._extents[delegate]
        offset = self._next + below
        self._next = offset + above
        return offset

    def new_id(self) -> int:
        """An id that no value has."""
        self._next += 1
        return self._next - 1

    def find(self, value: Value) -> GraphValue | None:
        """What a value is, if it has been asked for or bound."""
        return self._values.get(value)

    def dtype(self, value: Value) -> str | None:
        """What the elements of a tensor are on the device; None if it does not compute with them."""
        assert value.tensor is not None
        return "float32" if value in self._narrow else graph_dtype(value.tensor)

    def bind(self, value: Value, to: GraphValue) -> None:
        """Let a value be this."""
        self._values[value] = to

    def of(self, value: Value) -> GraphValue:
        """What a value is, in its own dtype. Raises UnsupportedProgramError for one that graphs cannot hold."""
        found = self._values.get(value)
        if found is None:
            found = self._values[value] = self._make(value)
        return found

    def like(self, tensor: Tensor) -> Tensor:
        """Another tensor of this kind."""
        return Tensor(self.new_id(), tensor.dtype, tensor.max_dims)

    def args(self, args: Iterable[Arg]) -> list[Any]:
        """Arguments as a graph has them."""
        return [self._arg(arg) for arg in args]

    def array(self, value: Value) -> np.ndarray:
        """The elements of a constant, in the program's dtype and in the order of its dims."""
        if value not in self._arrays:
            assert value.tensor is not None
            data = self._file.constant(value.tensor)
            self._arrays[value] = file_elements(value.tensor, data, self._plan.name)
        return self._arrays[value]

    def constants(self, calls: Iterable[OpCall]) -> Mapping[int, Constant]:
        """The contents of the constants that calls read."""
        held = {v.id: value for value, v in self._values.items() if value.constant}
        found = {}
        for call in calls:
            for tensor in call.inputs:
                if tensor.id in held:
                    found[tensor.id] = self._constant(held[tensor.id])
        return found

    def first_contents(self, tensor: schema.Tensor, label: int) -> Constant:
        """The constant that holds what a buffer begins with; ``label`` is its tensor's id."""
        data = self._file.first_value(tensor)
        dtype = numpy_dtype(tensor, self._plan.name)
        if data is None:
            return Constant(("zeros", label), memoryview(b""), dtype)
        return _stored(file_elements(tensor, data, self._plan.name), ("first", label))

    def _arg(self, arg: Arg) -> Any:
        if isinstance(arg, list):
            return [self._arg(item) for item in arg]
        return self.of(arg) if isinstance(arg, Value) else arg

    def _make(self, value: Value) -> GraphValue:
        if value.tensor is None:
            if not isinstance(value.described, plain.Int | plain.Null | plain.Bool):
                raise UnsupportedProgramError(f"its argument is a live {type(value.described).__name__}")
            return SymInt(self.new_id())
        dtype = self.dtype(value)
        if dtype is None:
            raise UnsupportedProgramError(f"its tensors hold {dtype_name(value.tensor)}")
        id = self.new_id()
        return Tensor(id, dtype, tuple(value.tensor.sizes), id if value.constant else None)

    def _constant(self, value: Value) -> Constant:
        assert value.tensor is not None
        array = self.array(value)
        address = array.__array_interface__["data"][0] if array.size else 0
        return _stored(array, (address, tuple(value.tensor.dim_order), value.tensor.scalar_type))


def _stored(array: np.ndarray, key: tuple[Any, ...]) -> Constant:
    """A constant with these elements: a view of the file where they lie there in order."""
    data = np.ascontiguousarray(array)
    return Constant((*key, array.shape), data.reshape(-1).view(np.uint8).data, data.dtype)


def _extent(graph: Graph) -> tuple[int, int]:
    """How far the ids of a graph go below 0, and one more than the highest."""
    ids = [*_ids(graph.calls), *(v.id for v in (*graph.inputs, *graph.outputs, *graph.symints)), *graph.constants]
    return -min([0, *ids]), 1 + max([0, *ids])


def _ids(calls: Iterable[OpCall]) -> Iterable[int]:
    for call in calls:
        yield from (v.id for v in (*call.reads, *call.writes, *call.inputs, *call.outputs))
