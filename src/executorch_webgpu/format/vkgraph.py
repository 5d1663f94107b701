"""Delegate blobs of the Vulkan and WebGPU partitioners: a ``VH00`` header, a ``VK00`` FlatBuffer, constants.

Header, little-endian: 4 zero bytes, ``VH00``, u16 size of the header (30), u32 offset and u32 size of the
FlatBuffer, u32 offset and u64 size of the constants. Source: backends/vulkan/serialization/ of executorch.

Storage types and memory layouts are kept as the file states them, but mean nothing here: every tensor is a
contiguous buffer, outermost dimension first.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Annotated, TypeAlias

from ..errors import InvalidProgramError
from .bounds import (
    check_index,
    check_indices,
    damaged,
    extent,
    tensor_nbytes,
)
from .flatbuffer import I32, U32, U64, Scalar, read_root, write_root
from .values import Bool, BoolList, Double, DoubleList, Int, IntList, Null, String

_HEADER = struct.Struct("<4x4sHIIIQ")
_HEADER_MAGIC = b"VH00"
_GRAPH_IDENTIFIER = b"VK00"
_ALIGNMENT = 16
NAMED = 2**64 - 1  # the offset of a constant whose bytes are in the program's named data


class DataType(IntEnum):
    BOOL = 0
    UINT8 = 1
    INT8 = 2
    INT32 = 3
    FLOAT16 = 4
    FLOAT32 = 5
    FLOAT64 = 6
    INT64 = 7
    UNSET = 127


_ITEMSIZE = {
    DataType.BOOL: 1,
    DataType.UINT8: 1,
    DataType.INT8: 1,
    DataType.INT32: 4,
    DataType.FLOAT16: 2,
    DataType.FLOAT32: 4,
    DataType.FLOAT64: 8,
    DataType.INT64: 8,
}


class StorageType(IntEnum):
    BUFFER = 0
    TEXTURE_3D = 1
    TEXTURE_2D = 2
    DEFAULT = 255


class MemoryLayout(IntEnum):
    WIDTH_PACKED = 0
    HEIGHT_PACKED = 1
    CHANNELS_PACKED = 2
    INT8_4W4C = 3
    INT8_4H4W = 4
    INT8_4W = 5
    INT8_4C = 6
    INT8_4C1W = 8
    INT8_CONV2D = 9
    DEFAULT = 255


@dataclass(frozen=True, slots=True)
class OperatorCall:
    """``name`` applied to values by id: the schema's arguments in order, then the output."""

    node_id: U32
    name: str
    args: tuple[I32, ...] = ()


@dataclass(frozen=True, slots=True)
class VkTensor:
    """A tensor. ``constant_id`` < 0: it is no constant; ``mem_obj_id`` < 0: it shares memory with no other.

    ``datatype`` is the element type on the device, ``staging_datatype`` what an input or output has outside.
    """

    datatype: Annotated[DataType, Scalar("b")]
    dims: tuple[U32, ...] = ()
    constant_id: I32 = -1
    mem_obj_id: I32 = -1
    storage_type: Annotated[StorageType, Scalar("B", absent=255)] = StorageType.DEFAULT
    memory_layout: Annotated[MemoryLayout, Scalar("B", absent=255)] = MemoryLayout.DEFAULT
    staging_datatype: Annotated[DataType, Scalar("b", absent=127)] = DataType.UNSET

    @property
    def nbytes(self) -> int:
        return tensor_nbytes(self.dims, _ITEMSIZE[self.datatype], "a tensor")


@dataclass(frozen=True, slots=True)
class ValueList:
    """Ids of other values: tensors, or sizes that mix Int and SymInt. Never of another ValueList."""

    items: tuple[I32, ...] = ()


@dataclass(frozen=True, slots=True)
class SymInt:
    """An integer that changes from run to run; ``value`` is where it starts."""

    value: I32 = 0


Value: TypeAlias = Null | Int | Double | Bool | VkTensor | IntList | DoubleList | BoolList | ValueList | String | SymInt


@dataclass(frozen=True, slots=True)
class VkBytes:
    """A range of the blob's constants; or, with offset ``NAMED``, the named data's entry ``named_key``."""

    offset: U64 = 0
    length: U64 = 0
    named_key: str | None = ""  # as the exporter writes it


@dataclass(frozen=True, slots=True)
class VkValue:
    value: Value


@dataclass(frozen=True, slots=True)
class GraphTable:
    """The root table as it lies in the file."""

    version: str | None
    chain: tuple[OperatorCall, ...]
    values: tuple[VkValue, ...]
    input_ids: tuple[U32, ...]
    output_ids: tuple[U32, ...]
    constants: tuple[VkBytes, ...] = ()
    shaders: tuple[VkBytes, ...] = ()
    storage_type_override: Annotated[StorageType, Scalar("B", absent=255)] = StorageType.DEFAULT
    memory_layout_override: Annotated[MemoryLayout, Scalar("B", absent=255)] = MemoryLayout.DEFAULT


@dataclass(frozen=True)
class VkGraph:
    """A delegated graph: calls to make in order, and the values that they read and write.

    One read by ``read_vkgraph`` is checked: all ids are in range, and every constant has at least the bytes
    of each tensor that uses it. ``constant_views`` are views of the file, not copies.

    Constants of equal content are one entry of the named data. A graph may write to a constant (a KV cache),
    so each VkTensor is a tensor of its own, even where two have the same bytes.
    """

    chain: tuple[OperatorCall, ...]
    values: tuple[Value, ...]
    input_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    constants: tuple[VkBytes, ...] = ()
    constant_views: tuple[memoryview, ...] = ()

    def constant_data(self, constant_id: int) -> memoryview:
        """The bytes of one constant, contiguous; there may be more of them than its tensor needs."""
        return self.constant_views[constant_id]


def read_vkgraph(blob: memoryview | bytes, named_data: Mapping[str, memoryview] = MappingProxyType({})) -> VkGraph:
    """Read and check a delegate blob; InvalidProgramError if it is not one, or if its data is not there."""
    blob = memoryview(blob).cast("B")
    flatbuffer, data = _split(blob)
    table = read_root(GraphTable, flatbuffer, _GRAPH_IDENTIFIER)
    graph = VkGraph(
        chain=table.chain,
        values=tuple([boxed.value for boxed in table.values]),
        input_ids=table.input_ids,
        output_ids=table.output_ids,
        constants=table.constants,
        constant_views=tuple(_constant_view(constant, data, named_data) for constant in table.constants),
    )
    _check_values(graph)
    count = len(graph.values)
    check_indices(graph.input_ids, count, "an input of a delegated graph")
    check_indices(graph.output_ids, count, "an output of a delegated graph")
    for call in graph.chain:
        check_indices(call.args, count, f"an argument of {call.name}")
    return graph


def write_vkgraph(graph: VkGraph, constants: Sequence[bytes | memoryview | VkBytes] = ()) -> bytes:
    """The blob of ``graph`` with ``constants`` in it; a VkBytes stands for an entry of the named data.

    ``graph.constants`` is not looked at: it follows from where the bytes go.
    """
    ranges: list[VkBytes] = []
    data = bytearray()
    for constant in constants:
        if isinstance(constant, VkBytes):
            ranges.append(constant)
            continue
        ranges.append(VkBytes(len(data), len(constant)))
        data += constant
        data += bytes(-len(data) % _ALIGNMENT)
    table = GraphTable(
        version="0",
        chain=graph.chain,
        values=tuple(VkValue(value) for value in graph.values),
        input_ids=graph.input_ids,
        output_ids=graph.output_ids,
        constants=tuple(ranges),
    )
    flatbuffer = write_root(table, _GRAPH_IDENTIFIER)
    start = _aligned(_HEADER.size)
    data_start = _aligned(start + len(flatbuffer))
    header = _HEADER.pack(_HEADER_MAGIC, _HEADER.size, start, len(flatbuffer), data_start, len(data))
    return header.ljust(start, b"\0") + flatbuffer.ljust(data_start - start, b"\0") + data


def _aligned(size: int) -> int:
    return size + -size % _ALIGNMENT


def _split(blob: memoryview) -> tuple[memoryview, memoryview]:
    """(FlatBuffer, constants) of a blob, by its header."""
    if len(blob) < _HEADER.size:
        raise damaged(f"a delegate's {len(blob)} bytes are too few for its header")
    magic, header_size, start, size, data_start, data_size = _HEADER.unpack_from(blob)
    if magic != _HEADER_MAGIC:
        raise damaged(f"a delegate should begin with {_HEADER_MAGIC!r}, not with {magic!r}")
    if header_size != _HEADER.size:
        raise damaged(f"the header of a delegate has {header_size} bytes where {_HEADER.size} are known")
    if start < header_size or data_start < start + size:
        raise damaged("the parts of a delegate overlap")
    return (
        extent(blob, start, size, "the graph of a delegate"),
        extent(blob, data_start, data_size, "the constants of a delegate"),
    )


def _constant_view(constant: VkBytes, data: memoryview, named_data: Mapping[str, memoryview]) -> memoryview:
    if not constant.named_key:
        return extent(data, constant.offset, constant.length, "a constant of a delegate")
    if constant.named_key not in named_data:
        raise InvalidProgramError(
            "the constants of a delegate are in a separate .ptd file, which was not found (one is "
            f"'{constant.named_key}'): put it beside the program, or name it in data_files"
        )
    return extent(named_data[constant.named_key], 0, constant.length, f"constant '{constant.named_key}'")


def _check_values(graph: VkGraph) -> None:
    for i, value in enumerate(graph.values):
        if isinstance(value, ValueList):
            check_indices(value.items, len(graph.values), f"an item of the list in value {i}")
            # No operator takes lists of lists; refusing them also refuses a list that contains itself.
            if any(isinstance(graph.values[item], ValueList) for item in value.items):
                raise damaged(f"the list in value {i} contains another list")
        elif isinstance(value, VkTensor):
            _check_tensor(graph, value, f"the tensor in value {i}")


def _check_tensor(graph: VkGraph, tensor: VkTensor, what: str) -> None:
    if tensor.datatype not in _ITEMSIZE:
        raise damaged(f"{what} has no data type")
    needed = tensor_nbytes(tensor.dims, _ITEMSIZE[tensor.datatype], what)
    if tensor.constant_id < 0:
        return
    check_index(tensor.constant_id, len(graph.constant_views), f"the constant of {what}")
    available = len(graph.constant_views[tensor.constant_id])
    # More is fine: exporters store whole storages, of which the tensor may be the front part.
    if available < needed:
        raise damaged(f"{what} needs {needed} bytes, but its constant has {available}")
