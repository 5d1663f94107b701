"""Our readers and writers against the exporter's own."""

from __future__ import annotations

import dataclasses
import struct
from enum import IntEnum
from typing import Any

import torch
from executorch.backends.vulkan.serialization import vulkan_graph_schema as vk
from executorch.backends.vulkan.serialization.vulkan_graph_serialize import (
    extract_vk_flatbuffer,
    flatbuffer_to_vk_graph,
    serialize_vulkan_graph,
)
from executorch.exir import schema
from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program, _program_to_flatbuffer
from executorch.exir._serialize._program import PTEFile, deserialize_pte_binary, serialize_pte_binary

from executorch_webgpu.format.flatbuffer import read_root
from executorch_webgpu.format.program_schema import BackendDelegate, Program, Tensor
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.format.vkgraph import GraphTable, read_vkgraph
from tests.format.samples import BIAS, BLOB, FILE, GRAPH, WEIGHT


def plain(table: Any) -> Any:
    """Tables of either side as nested lists: names of fields differ, their order does not."""
    if isinstance(table, IntEnum):
        return int(table)
    if isinstance(table, memoryview | bytes):
        return bytes(table)
    if isinstance(table, list | tuple):
        return [plain(item) for item in table] or None
    if not dataclasses.is_dataclass(table):
        return None if table == "" else table  # an empty string and none are one to the exporter
    names = [field.name for field in dataclasses.fields(table)]
    if type(table).__name__ == "Tensor":
        names.sort()  # the exception: the exporter's class has another order
    return [type(table).__name__, *[plain(getattr(table, name)) for name in names]]


def test_executorch_reads_our_program() -> None:
    ours, theirs = read_program(FILE).program, _flatbuffer_to_program(FILE)
    assert plain(theirs) == plain(ours)


def test_we_read_the_program_that_executorch_writes() -> None:
    theirs = _flatbuffer_to_program(FILE)
    written = _program_to_flatbuffer(theirs).data
    assert plain(read_root(Program, written, b"ET12")) == plain(theirs)


def test_executorch_reads_our_graph() -> None:
    theirs = flatbuffer_to_vk_graph(extract_vk_flatbuffer(BLOB))
    ours = read_root(GraphTable, extract_vk_flatbuffer(BLOB), b"VK00")
    assert plain(theirs)[1:] == plain(ours)[1:]


def test_we_read_the_blob_that_executorch_writes() -> None:
    theirs = flatbuffer_to_vk_graph(extract_vk_flatbuffer(BLOB))
    theirs.constants = []
    weight = torch.tensor(struct.unpack("<6f", WEIGHT)).reshape(3, 2)
    blob = serialize_vulkan_graph(theirs, [weight, ("bias", len(BIAS)), None], [])
    graph = read_vkgraph(blob, {"bias": memoryview(BIAS)})
    assert dataclasses.replace(graph, constants=(), constant_views=()) == GRAPH
    assert [bytes(view) for view in graph.constant_views] == [WEIGHT, BIAS, b""]


def test_defaults_that_executorch_leaves_out() -> None:
    tensor = vk.VkTensor(vk.VkDataType.FLOAT32, [0], constant_id=0, mem_obj_id=0)
    theirs = vk.VkGraph("0", [], [vk.VkValue(tensor)], [], [], [], [])
    (ours,) = read_vkgraph(serialize_vulkan_graph(theirs, [None], [])).values
    assert plain(ours) == plain(tensor)


def test_we_read_the_segments_that_executorch_writes() -> None:
    file = deserialize_pte_binary(FILE)  # with all data back in the tables
    extracted = serialize_pte_binary(
        PTEFile(file.program, mutable_data=file.mutable_data, named_data=file.named_data),
        extract_delegate_segments=True,
        segment_alignment=4096,
    )
    program, sample = read_program(bytes(extracted)), read_program(FILE)
    assert program.named_data == sample.named_data
    for ours, theirs in zip(sample.methods, program.methods, strict=True):
        tensors = [boxed.value for boxed in theirs.values if isinstance(boxed.value, Tensor)]
        assert tensors == [boxed.value for boxed in ours.values if isinstance(boxed.value, Tensor)]
        for tensor in tensors:
            if tensor.is_constant:
                assert program.constant(tensor) == sample.constant(tensor)
            if tensor.has_initial_state:
                assert program.mutable_initial(tensor) == sample.mutable_initial(tensor)
        assert _delegates(program, theirs.delegates) == _delegates(sample, ours.delegates)


def _delegates(program: Any, delegates: tuple[BackendDelegate, ...]) -> list[tuple[str, bytes]]:
    return [(delegate.id, bytes(program.delegate_data(delegate))) for delegate in delegates]


def test_enums_are_executorchs() -> None:
    from executorch_webgpu.format import program_schema, vkgraph

    for ours, theirs in (
        (vkgraph.DataType, vk.VkDataType),
        (vkgraph.StorageType, vk.VkStorageType),
        (vkgraph.MemoryLayout, vk.VkMemoryLayout),
        (program_schema.ShapeDynamism, schema.TensorShapeDynamism),
        (program_schema.TensorDataLocation, schema.TensorDataLocation),
        (program_schema.DeviceType, schema.DeviceType),
        (program_schema.DataLocation, schema.DataLocation),
    ):
        assert [int(member) for member in ours] == [int(member) for member in theirs]
