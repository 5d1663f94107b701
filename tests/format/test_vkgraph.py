"""Reading delegate blobs: the header, the constants, and every id."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from executorch_webgpu.errors import InvalidProgramError
from executorch_webgpu.format.vkgraph import (
    NAMED,
    DataType,
    OperatorCall,
    ValueList,
    VkBytes,
    VkGraph,
    VkTensor,
    read_vkgraph,
    write_vkgraph,
)
from tests.format.samples import BIAS, BLOB, GRAPH, NAMED_BIAS, WEIGHT

replace = dataclasses.replace
NAMED_DATA = {"bias": memoryview(BIAS)}
HEADER = struct.Struct("<4x4sHIIIQ")


def test_a_graph_reads_back() -> None:
    graph = read_vkgraph(BLOB, NAMED_DATA)
    assert replace(graph, constants=(), constant_views=()) == GRAPH
    assert graph.constants == (VkBytes(0, len(WEIGHT)), NAMED_BIAS)
    assert graph.constant_data(0) == WEIGHT
    assert graph.constant_data(1) == BIAS
    weight = graph.values[1]
    assert isinstance(weight, VkTensor) and weight.nbytes == len(WEIGHT)


def test_constants_are_aligned_views() -> None:
    blob = bytearray(write_vkgraph(VkGraph((), (), (), ()), [b"a", WEIGHT, b"", BIAS]))
    graph = read_vkgraph(memoryview(blob))
    assert [bytes(view) for view in graph.constant_views] == [b"a", WEIGHT, b"", BIAS]
    assert {(HEADER.unpack_from(blob)[4] + constant.offset) % 16 for constant in graph.constants} == {0}
    blob[blob.index(BIAS)] ^= 0xFF
    assert graph.constant_data(3)[0] == BIAS[0] ^ 0xFF


def test_named_data_may_be_longer() -> None:
    assert read_vkgraph(BLOB, {"bias": memoryview(BIAS + b"rest")}).constant_data(1) == BIAS


def test_missing_named_data() -> None:
    with pytest.raises(InvalidProgramError, match=r"\.ptd file, which was not found \(one is 'bias'\)"):
        read_vkgraph(BLOB)
    with pytest.raises(InvalidProgramError, match="constant 'bias'"):
        read_vkgraph(BLOB, {"bias": memoryview(BIAS[:-1])})


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, b"VH01", "should begin with b'VH00'"),
        (1, 31, "has 31 bytes where 30 are known"),
        (2, 2**32 - 1, "overlap"),
        (2, 8, "overlap"),
        (3, 2**32 - 1, "overlap"),
        (4, 2**32 - 1, "the constants of a delegate"),
        (5, 2**64 - 1, "the constants of a delegate"),
        (5, 0, "a constant of a delegate"),
    ],
)
def test_a_wrong_header(index: int, value: bytes | int, message: str) -> None:
    fields = list(HEADER.unpack_from(BLOB))
    fields[index] = value
    with pytest.raises(InvalidProgramError, match=message):
        read_vkgraph(HEADER.pack(*fields) + BLOB[HEADER.size :], NAMED_DATA)


def with_value(value: VkTensor | ValueList) -> VkGraph:
    return replace(GRAPH, values=(*GRAPH.values, value))


WRONG = {
    "an argument of aten.add is 15": replace(GRAPH, chain=(OperatorCall(0, "aten.add", (0, 15)),)),
    "an argument of aten.add is -1": replace(GRAPH, chain=(OperatorCall(0, "aten.add", (-1,)),)),
    "an input of a delegated graph is 15": replace(GRAPH, input_ids=(15,)),
    "an output of a delegated graph is 15": replace(GRAPH, output_ids=(15,)),
    "an item of the list in value 15 is 16": with_value(ValueList((16,))),
    "value 15 contains another list": with_value(ValueList((15,))),
    "the constant of the tensor in value 15 is 2": with_value(VkTensor(DataType.INT8, (1,), constant_id=2)),
    "needs 28 bytes, but its constant has 24": with_value(VkTensor(DataType.FLOAT32, (7,), constant_id=0)),
    "has no data type": with_value(VkTensor(DataType.UNSET, (1,))),
    "larger than any memory": with_value(VkTensor(DataType.INT64, (2**32 - 1,) * 2)),
    "more than 16": with_value(VkTensor(DataType.INT8, (1,) * 17)),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_id_or_tensor(message: str) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        read_vkgraph(write_vkgraph(WRONG[message], [WEIGHT, NAMED_BIAS]), NAMED_DATA)


@pytest.mark.parametrize("wrong", [VkBytes(2**64 - 2, 4), VkBytes(0, 2**64 - 1), VkBytes(NAMED, 0)])
def test_a_constant_outside_the_blob(wrong: VkBytes) -> None:
    with pytest.raises(InvalidProgramError, match="a constant of a delegate"):
        read_vkgraph(write_vkgraph(GRAPH, [WEIGHT, NAMED_BIAS, wrong]), NAMED_DATA)


def test_a_constant_may_be_longer_than_its_tensor() -> None:
    graph = with_value(VkTensor(DataType.INT8, (5,), constant_id=0))
    assert len(read_vkgraph(write_vkgraph(graph, [WEIGHT, BIAS])).constant_data(0)) == len(WEIGHT)
