"""Reading programs: the header, the segments, and every index."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import Any

import pytest

from executorch_webgpu.errors import InvalidProgramError, UnsupportedProgramError
from executorch_webgpu.format.program_schema import (
    Buffer,
    Chain,
    DataSegment,
    DelegateCall,
    EValue,
    ExtraTensorInfo,
    FreeCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    MoveCall,
    NamedData,
    OptionalTensorList,
    Program,
    ScalarType,
    SubsegmentOffsets,
    Tensor,
    TensorDataLocation,
    TensorList,
)
from executorch_webgpu.format.pte import read_program, write_program
from executorch_webgpu.format.values import Int
from tests.format.samples import BIAS, BLOB, COUNTER, FILE, PROGRAM, SEGMENTS, WEIGHT

replace = dataclasses.replace
FORWARD = PROGRAM.execution_plan[0]
# Fields of the extended header, from the start of the file.
LENGTH, SIZE, BASE, SEGMENTS_SIZE = 12, 16, 24, 32


def values_of(program: Program) -> list[Any]:
    return [boxed.value for boxed in program.execution_plan[0].values]


def test_a_program_reads_back() -> None:
    file = read_program(FILE)
    assert replace(file.program, segments=()) == PROGRAM
    assert [method.name for method in file.methods] == ["forward", "get_max_seq_len"]
    assert [bytes(segment) for segment in file.segments] == list(SEGMENTS)
    assert file.segment(1) == BIAS
    assert {name: bytes(data) for name, data in file.named_data.items()} == {"bias": BIAS, "same bias": BIAS}
    assert [bytes(file.delegate_data(delegate)) for delegate in FORWARD.delegates] == [BLOB, b"inline"]
    _, weight, counter, *_ = values_of(file.program)
    assert weight.is_constant and not weight.has_initial_state
    assert counter.has_initial_state and not counter.is_constant
    assert file.constant(weight) == WEIGHT
    assert file.mutable_initial(counter) == COUNTER


def test_data_is_not_copied() -> None:
    data = bytearray(FILE)
    bias = read_program(memoryview(data)).named_data["bias"]
    data[data.rindex(BIAS)] ^= 0xFF
    assert bias[0] == BIAS[0] ^ 0xFF


def test_segments_are_aligned() -> None:
    (base,) = struct.unpack_from("<Q", FILE, BASE)
    assert {(base + segment.offset) % 128 for segment in read_program(FILE).program.segments} == {0}


def test_a_short_header_leaves_the_segments_size_open() -> None:
    data = bytearray(FILE)
    struct.pack_into("<I", data, LENGTH, 24)
    struct.pack_into("<Q", data, SEGMENTS_SIZE, 2**64 - 1)
    assert read_program(memoryview(data)).segments == read_program(FILE).segments


def test_a_program_without_segments() -> None:
    program = Program(execution_plan=(PROGRAM.execution_plan[1],))
    assert read_program(write_program(program)).program == program


def test_constants_inside_the_flatbuffer() -> None:
    plan = replace(FORWARD, values=FORWARD.values[1:2], inputs=(), outputs=(), chains=(), delegates=())
    buffers = (Buffer(), Buffer(memoryview(WEIGHT)))
    file = read_program(write_program(Program(execution_plan=(plan,), constant_buffer=buffers)))
    assert file.constant(values_of(file.program)[0]) == WEIGHT
    with pytest.raises(InvalidProgramError, match="a constant tensor"):
        buffers = (Buffer(), Buffer(memoryview(WEIGHT[:-1])))
        read_program(write_program(Program(execution_plan=(plan,), constant_buffer=buffers)))


def test_external_data_is_unsupported_when_asked_for() -> None:
    extra = ExtraTensorInfo(fully_qualified_name="w", location=TensorDataLocation.EXTERNAL)
    tensor = Tensor(ScalarType.FLOAT, sizes=(2,), dim_order=(0,), extra_tensor_info=extra)
    file = read_program(write_program(with_value(tensor), SEGMENTS))
    assert tensor.is_constant
    with pytest.raises(UnsupportedProgramError, match=r"'w' is in a separate \.ptd"):
        file.constant(tensor)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (LENGTH, 23, "extended header has 23 bytes"),
        (SIZE, 2**64 - 1, "the program "),
        (SIZE, 8, "its own header"),
        (BASE, 2**64 - 1, "the segments"),
        (BASE, 16, "overlap"),
        (BASE, 0, "segment 0"),
        (SEGMENTS_SIZE, 2**64 - 1, "the segments"),
        (SEGMENTS_SIZE, 0, "segment 0"),
    ],
)
def test_a_wrong_header(field: int, value: int, message: str) -> None:
    data = bytearray(FILE)
    struct.pack_into("<I" if field == LENGTH else "<Q", data, field, value)
    with pytest.raises(InvalidProgramError, match=message):
        read_program(memoryview(data))


@pytest.mark.parametrize("identifier", [b"ET11", b"ET13", b"PK\3\4", b"GGUF"])
def test_other_identifiers(identifier: bytes) -> None:
    with pytest.raises(InvalidProgramError, match="ET12"):
        read_program(FILE[:4] + identifier + FILE[8:])


def with_plan(**changes: Any) -> Program:
    return replace(PROGRAM, execution_plan=(replace(FORWARD, **changes),))


def with_value(value: Any) -> Program:
    return with_plan(values=(*FORWARD.values, EValue(value)))


def with_call(call: Any) -> Program:
    return with_plan(chains=(Chain(instructions=(Instruction(call),)),))


def float_tensor(sizes: tuple[int, ...], **changes: Any) -> Tensor:
    return replace(Tensor(ScalarType.FLOAT, sizes=sizes, dim_order=tuple(range(len(sizes)))), **changes)


WRONG: dict[str, Program] = {
    "an input of": with_plan(inputs=(9,)),
    "an output of": with_plan(outputs=(-1,)),
    "a chain's input": with_plan(chains=(Chain(inputs=(9,)),)),
    "a chain's output": with_plan(chains=(Chain(outputs=(-1,)),)),
    "the operator of instruction 0": with_call(KernelCall(1, ())),
    "a value of instruction 0 of 'forward' is 9": with_call(KernelCall(0, (0, 9))),
    "a value of instruction 0 of 'forward' is -1": with_call(DelegateCall(0, (-1,))),
    "the delegate of instruction 0": with_call(DelegateCall(2, ())),
    "a value of instruction 0 of 'forward' is 10": with_call(MoveCall(0, 10)),
    "a value of instruction 0 of 'forward' is 11": with_call(MoveCall(11, 0)),
    "a value of instruction 0 of 'forward' is 12": with_call(FreeCall(12)),
    "a value of instruction 0 of 'forward' is 13": with_call(JumpFalseCall(13, 0)),
    "the destination of instruction 0": with_call(JumpFalseCall(6, 2)),
    "an item of the list in value 9 of 'forward' is 10": with_value(TensorList((10,))),
    "an item of the list in value 9 of 'forward' is not a tensor": with_value(TensorList((7,))),
    "an item of the list in value 9 of 'forward' is -2": with_value(OptionalTensorList((-2,))),
    "negative size in": with_value(float_tensor((2, -1))),
    "more than 16": with_value(float_tensor((1,) * 17)),
    "larger than any memory": with_value(float_tensor((0, *[2**31 - 1] * 3))),
    "dim_order": with_value(float_tensor((2, 3), dim_order=(1, 1))),
    "constant tensor's data is 2": with_value(float_tensor((2,), data_buffer_idx=2)),
    "a constant tensor ": with_value(float_tensor((7,), data_buffer_idx=1)),
    "no name to find it": with_value(
        float_tensor((2,), extra_tensor_info=ExtraTensorInfo(location=TensorDataLocation.EXTERNAL))
    ),
    "mutable data segment is 1": with_value(
        replace(FORWARD.values[2].value, extra_tensor_info=ExtraTensorInfo(mutable_data_segments_idx=1))
    ),
    "a mutable tensor ": with_value(replace(FORWARD.values[2].value, sizes=(3,))),
    "memory buffer of negative size": with_plan(non_const_buffer_sizes=(0, -1)),
    "segment of constant tensors is 4": replace(PROGRAM, constant_segment=SubsegmentOffsets(4, (0, 16))),
    "no segment to be in": replace(PROGRAM, constant_segment=None),
    "segment of named data is 4": replace(PROGRAM, named_data=(NamedData("x", 4),)),
    "'x' is there twice": replace(PROGRAM, named_data=(NamedData("x", 0), NamedData("x", 1))),
    "the same name": replace(PROGRAM, execution_plan=(FORWARD, FORWARD)),
    "data index of delegate 'OtherBackend'": replace(PROGRAM, backend_delegate_data=()),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_index_or_tensor(message: str) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        read_program(write_program(WRONG[message], SEGMENTS))


@pytest.mark.parametrize(
    "change", [lambda s: DataSegment(2**64 - 1, s.size), lambda s: DataSegment(s.offset, 2**64 - 1)]
)
def test_segments_outside_the_file(change: Callable[[Any], Any]) -> None:
    last = read_program(FILE).program.segments[-1]
    wrong = change(last)
    old, new = struct.pack("<QQ", last.offset, last.size), struct.pack("<QQ", wrong.offset, wrong.size)
    data = FILE.replace(old, new).replace(old[8:] + old[:8], new[8:] + new[:8])
    assert data != FILE
    with pytest.raises(InvalidProgramError, match="segment 3"):
        read_program(memoryview(data))


def test_values_of_a_constant_method() -> None:
    method = read_program(FILE).methods[1]
    assert [method.values[i].value for i in method.outputs] == [Int(512)]
