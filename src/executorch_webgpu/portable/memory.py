"""A method's values on the host, in the memory that the program planned for them.

The exporter drops views whose result has the same place as their input, and lets buffers last from call to call, so
where a tensor lies is part of a program's meaning: tensors are views of arenas, as in ExecuTorch's own runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidProgramError, UnsupportedProgramError
from ..format import program_schema as schema
from ..format import values as plain
from ..format.pte import ProgramFile

HostValue = np.ndarray | int | float | bool | str | list[float] | list[bool] | None

_DTYPE_NAMES = {
    schema.ScalarType.BYTE: "uint8",
    schema.ScalarType.CHAR: "int8",
    schema.ScalarType.SHORT: "int16",
    schema.ScalarType.INT: "int32",
    schema.ScalarType.LONG: "int64",
    schema.ScalarType.HALF: "float16",
    schema.ScalarType.FLOAT: "float32",
    schema.ScalarType.DOUBLE: "float64",
    schema.ScalarType.BOOL: "bool",
}


def dtype_name(tensor: schema.Tensor) -> str:
    """The NumPy name of a tensor's dtype, or the schema's name for what NumPy has none for."""
    return _DTYPE_NAMES.get(tensor.scalar_type, tensor.scalar_type.name.lower())


@dataclass(frozen=True)
class Place:
    """A range of bytes of planned memory."""

    arena: int
    begin: int
    end: int


class HostMemory:
    """The values of one loaded method. ``values`` is the table that instructions read and write by index.

    ``lasting`` are the places whose contents last from call to call. They belong to a state: a call takes them from
    it, and gives new ones. ``initial`` are those that the program states; planned memory without contents is zero.
    Raises InvalidProgramError when a tensor does not fit the memory that the program plans, UnsupportedProgramError for
    one of a dtype that NumPy does not have.
    """

    def __init__(self, file: ProgramFile, plan: schema.ExecutionPlan, lasting: Sequence[Place]) -> None:
        self._file = file
        self._plan = plan
        self._lasting = lasting
        try:
            # Entry 0 stands for constants; large arenas cost nothing until they are written.
            self._arenas = [np.zeros(size, np.uint8) for size in plan.non_const_buffer_sizes]
        except (MemoryError, ValueError) as error:
            raise InvalidProgramError(f"method {plan.name!r} plans {plan.non_const_buffer_sizes} bytes") from error
        self._start = [self._initial(boxed.value) for boxed in plan.values]
        self.initial = self.end()
        self.values = list(self._start)

    def begin(self, lasting: Sequence[np.ndarray]) -> None:
        """Start a call: what earlier calls stored is forgotten, but for what lasts."""
        for place, contents in zip(self._lasting, lasting, strict=True):
            self._arenas[place.arena][place.begin : place.end] = contents
        self.values = list(self._start)

    def end(self) -> list[np.ndarray]:
        """What lasts of a call: the bytes of every lasting place."""
        return [self._arenas[place.arena][place.begin : place.end].copy() for place in self._lasting]

    def store(self, index: int, result: Any) -> None:
        """Set a value: a tensor gets the program's dtype, the result's dims, and its planned place."""
        described = self._plan.values[index].value
        if not isinstance(described, schema.Tensor):
            self.values[index] = result
            return
        array: np.ndarray = np.asarray(result, dtype_name(described), order="C")
        if described.allocation_info is not None:
            planned = self._place(described).reshape(-1)
            if array.size > planned.size:
                raise InvalidProgramError(f"value {index} has {array.size} elements, but {planned.size} are planned")
            place: np.ndarray = planned[: array.size].reshape(array.shape)
            place[...] = array
            array = place
        self.values[index] = array

    def _initial(self, value: schema.ProgramValue) -> HostValue:
        match value:
            case schema.Tensor():
                return self._initial_tensor(value)
            case plain.Int() | plain.Double() | plain.Bool() | plain.String():
                return value.value
            case plain.DoubleList() | plain.BoolList():
                return list(value.items)
            case _:
                return None

    def _initial_tensor(self, tensor: schema.Tensor) -> np.ndarray | None:
        if tensor.scalar_type not in _DTYPE_NAMES:
            raise UnsupportedProgramError(
                f"method {self._plan.name!r} has a tensor of {dtype_name(tensor)}, which the host cannot hold"
            )
        if tensor.is_constant:
            return np.frombuffer(self._file.constant(tensor), dtype_name(tensor)).reshape(tensor.sizes)
        if tensor.allocation_info is None:
            return None
        place = self._place(tensor)
        if tensor.has_initial_state:
            place[...] = np.frombuffer(self._file.mutable_initial(tensor), place.dtype).reshape(place.shape)
        return place

    def _place(self, tensor: schema.Tensor) -> np.ndarray:
        """A tensor's view of its arena, at its largest size."""
        where = tensor.allocation_info
        assert where is not None
        if where.memory_id >= len(self._arenas) or where.offset + tensor.nbytes > self._arenas[where.memory_id].size:
            raise InvalidProgramError(f"method {self._plan.name!r} plans a tensor outside of its memory")
        view = self._arenas[where.memory_id][where.offset : where.offset + tensor.nbytes]
        try:
            return view.view(dtype_name(tensor)).reshape(tensor.sizes)
        except (TypeError, ValueError) as error:
            raise InvalidProgramError(f"method {self._plan.name!r} plans a misplaced tensor ({error})") from error
