"""What a method remembers from call to call outside of its graphs: buffers that the host, or several graphs, use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..format import program_schema as schema
from ..graph.device_array import DeviceArray
from ..graph.lowering.instructions import Cell
from ..graph.lowering.segments import Lowered
from ..portable.dtypes import numpy_dtype
from ..portable.elements import file_elements
from .method_file import MethodFile


@dataclass(frozen=True)
class HostState:
    """The buffers of one loaded method, by cell, in an order that saved states keep.

    ``initial``: what those begin with that no other method knows. ``shared``: the others, by their names.
    """

    initial: Mapping[Cell, np.ndarray]
    shared: Mapping[str, Cell]
    numbers: Mapping[Cell, Any]
    _described: Mapping[Cell, tuple[np.dtype, tuple[int, ...]]]

    @classmethod
    def of(cls, file: MethodFile, lowered: Lowered) -> HostState:
        """The buffers of a method that its graphs do not keep. Raises UnsupportedProgramError for an unknown dtype."""
        initial, shared, described = {}, {}, {}
        for cell, tensor in sorted(lowered.state.items(), key=lambda item: str(item[0])):
            described[cell] = numpy_dtype(tensor, file.plan.name), tuple(tensor.sizes)
            name = tensor.extra_tensor_info.fully_qualified_name if tensor.extra_tensor_info else None
            if name:
                shared[name] = cell
            else:
                initial[cell] = _first(file, tensor)
        return cls(initial, shared, lowered.flow.numbers, described)

    def begin(self, contents: Mapping[Cell, Any], buffers: Mapping[str, np.ndarray]) -> dict[Cell, Any]:
        """The cells that a call begins with. ``contents``: of the method's own; ``buffers``: bytes of shared ones."""
        cells = {**self.numbers, **contents}
        for name, cell in self.shared.items():
            dtype, dims = self._described[cell]
            cells[cell] = buffers[name].view(dtype).reshape(dims)
        return cells

    def end(self, cells: Mapping[Cell, Any]) -> tuple[dict[Cell, Any], dict[str, np.ndarray]]:
        """What a call leaves: the contents of the method's own buffers, and the bytes of shared ones by name."""
        own = {cell: _owned(cells[cell]) for cell in self.initial}
        shared = {name: _owned(self.on_host(cell, cells[cell])) for name, cell in self.shared.items()}
        return own, {name: array.reshape(-1).view(np.uint8) for name, array in shared.items()}

    def on_host(self, cell: Cell, contents: Any) -> np.ndarray:
        """What a cell holds as an array of the program's dtype."""
        array = contents.numpy() if isinstance(contents, DeviceArray) else contents
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(array, self._described[cell][0])


def _owned(contents: Any) -> Any:
    """Contents that the caller does not change: a buffer may have become an input as it is."""
    return contents.copy() if isinstance(contents, np.ndarray) else contents


def _first(file: MethodFile, tensor: schema.Tensor) -> np.ndarray:
    """What a buffer begins with; zeros where the file does not say."""
    data = file.file.first_value(tensor)
    if data is None:
        return np.zeros(tensor.sizes, numpy_dtype(tensor, file.plan.name))
    return np.array(file_elements(tensor, data, file.plan.name))
