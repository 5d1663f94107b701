"""A method's values on the host, in the memory that the program planned for them.

The exporter drops views whose result has the same place as their input, and lets buffers last from call to call, so
where a tensor lies is part of a program's meaning: tensors are views of arenas, as in ExecuTorch's own runtime. Their
elements lie there in the order of their dimensions, outermost first. ``dim_order`` counts for the bytes of the file
only: a view that was dropped is one of the tensor, not of how its memory was to be laid out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidProgramError
from ..format import program_schema as schema
from ..format import values as plain
from ..format.pte import ProgramFile
from .dtypes import numpy_dtype

HostValue = np.ndarray | int | float | bool | str | list[float] | list[bool] | None


@dataclass(frozen=True)
class Place:
    """A range of bytes of planned memory."""

    arena: int
    begin: int
    end: int


def in_dim_order(elements: np.ndarray, dims: Sequence[int], dim_order: Sequence[int]) -> np.ndarray:
    """``elements`` [n], which lie outermost dimension first as ``dim_order`` names them, as a view with ``dims``."""
    stored = elements.reshape([dims[d] for d in dim_order])
    return stored.transpose(np.argsort(dim_order)) if len(dims) > 1 else stored


class HostMemory:
    """The values of one loaded method. ``values`` is the table that instructions read and write by index.

    ``lasting`` are the places whose contents last from call to call, ``shared`` those of buffers, by name, that other
    methods know too. Their contents belong to a state: a call takes them from it, and gives new ones. ``initial`` are
    those that the program states for ``lasting``; planned memory without contents is zero.
    Raises InvalidProgramError when a tensor does not fit the memory that the program plans, UnsupportedProgramError for
    one of a dtype that NumPy does not have.
    """

    def __init__(
        self,
        file: ProgramFile,
        plan: schema.ExecutionPlan,
        lasting: Sequence[Place],
        shared: Mapping[str, Place],
    ) -> None:
        self._file = file
        self._plan = plan
        self._lasting = lasting
        self._shared = shared
        try:
            # Entry 0 stands for constants; large arenas cost nothing until they are written.
            self._arenas = [np.zeros(size, np.uint8) for size in plan.non_const_buffer_sizes]
        except (MemoryError, ValueError) as error:
            raise InvalidProgramError(f"method {plan.name!r} plans {plan.non_const_buffer_sizes} bytes") from error
        self._start = [self._initial(boxed.value) for boxed in plan.values]
        self.initial = [self._bytes(place).copy() for place in lasting]
        self.values = list(self._start)

    def begin(self, lasting: Sequence[np.ndarray], shared: Mapping[str, np.ndarray]) -> None:
        """Start a call: what earlier calls stored is forgotten, but for what lasts."""
        for place, contents in zip(self._lasting, lasting, strict=True):
            self._bytes(place)[...] = contents
        for name, place in self._shared.items():
            self._bytes(place)[...] = shared[name]
        self.values = list(self._start)

    def end(self) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """What lasts of a call: the bytes of every lasting place, and of the shared buffers by name."""
        return (
            [self._bytes(place).copy() for place in self._lasting],
            {name: self._bytes(place).copy() for name, place in self._shared.items()},
        )

    def store(self, index: int, result: Any) -> None:
        """Set a value: a tensor gets the program's dtype, the result's dims, and its planned place."""
        described = self._plan.values[index].value
        if not isinstance(described, schema.Tensor):
            self.values[index] = result
            return
        dtype = numpy_dtype(described, self._plan.name)
        with np.errstate(all="ignore"):  # what a dtype cannot hold becomes what C makes of it, as in torch
            array: np.ndarray = np.asarray(result).astype(dtype, copy=False)
        if described.allocation_info is not None:
            planned = self._elements(described)
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
        dtype = numpy_dtype(tensor, self._plan.name)
        if tensor.is_constant:
            return in_dim_order(np.frombuffer(self._file.constant(tensor), dtype), tensor.sizes, tensor.dim_order)
        if tensor.allocation_info is None:
            return None
        place = self._elements(tensor).reshape(tensor.sizes)
        if (first := self._file.first_value(tensor)) is not None:
            place[...] = in_dim_order(np.frombuffer(first, dtype), tensor.sizes, tensor.dim_order)
        return place

    def _elements(self, tensor: schema.Tensor) -> np.ndarray:
        """The elements [n] of a tensor's place at its largest size."""
        where = tensor.allocation_info
        assert where is not None
        if where.memory_id >= len(self._arenas) or where.offset + tensor.nbytes > self._arenas[where.memory_id].size:
            raise InvalidProgramError(f"method {self._plan.name!r} plans a tensor outside of its memory")
        view = self._bytes(Place(where.memory_id, where.offset, where.offset + tensor.nbytes))
        try:
            return view.view(numpy_dtype(tensor, self._plan.name))
        except (TypeError, ValueError) as error:
            raise InvalidProgramError(f"method {self._plan.name!r} plans a misplaced tensor ({error})") from error

    def _bytes(self, place: Place) -> np.ndarray:
        return self._arenas[place.arena][place.begin : place.end]
