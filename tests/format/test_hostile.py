"""Damaged files: each is refused with InvalidProgramError, or all that it then offers can be used."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidProgramError
from executorch_webgpu.format.program_schema import DelegateCall, KernelCall, Tensor
from executorch_webgpu.format.pte import ProgramFile, read_program
from executorch_webgpu.format.vkgraph import ValueList, VkGraph, VkTensor, read_vkgraph
from tests.format.samples import BIAS, BLOB, FILE

NAMED_DATA = {"bias": memoryview(BIAS)}
TABLES_END = struct.unpack_from("<Q", FILE, 16)[0]  # behind it: the segments, of which the blob is tried alone
EXTREMES = [0, 1, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 16]


def walk_program(data: bytes) -> ProgramFile | None:
    """Follows everything in a program that can be read at all."""
    try:
        file = read_program(data)
    except InvalidProgramError:
        return None
    for method in file.methods:
        for index in (*method.inputs, *method.outputs):
            assert method.values[index].value is not None
        for tensor in [value.value for value in method.values if isinstance(value.value, Tensor)]:
            if tensor.is_constant and not tensor.is_external:
                assert len(file.constant(tensor)) == tensor.nbytes
            if tensor.has_initial_state:
                assert len(file.mutable_initial(tensor)) == tensor.nbytes
        for call in [instruction.call for chain in method.chains for instruction in chain.instructions]:
            if isinstance(call, KernelCall):
                assert method.operators[call.op_index].name is not None
            if isinstance(call, DelegateCall):
                walk_graph(bytes(file.delegate_data(method.delegates[call.delegate_index])), file.named_data)
    return file


def walk_graph(blob: bytes, named_data: Mapping[str, memoryview] = NAMED_DATA) -> VkGraph | None:
    try:
        graph = read_vkgraph(blob, named_data)
    except InvalidProgramError:
        return None
    for index in (*graph.input_ids, *graph.output_ids, *[i for call in graph.chain for i in call.args]):
        value = graph.values[index]
        if isinstance(value, ValueList):
            assert not any(isinstance(graph.values[item], ValueList) for item in value.items)
        elif isinstance(value, VkTensor) and value.constant_id >= 0:
            assert len(graph.constant_data(value.constant_id)) >= value.nbytes
    return graph


def test_the_samples_are_walked() -> None:
    assert walk_program(FILE) is not None
    assert walk_graph(BLOB) is not None


def test_a_truncated_program_is_refused() -> None:
    for cut in range(len(FILE)):
        with pytest.raises(InvalidProgramError):
            read_program(FILE[:cut])


def test_a_truncated_graph_is_refused() -> None:
    for cut in range(len(BLOB)):
        with pytest.raises(InvalidProgramError):
            read_vkgraph(BLOB[:cut], NAMED_DATA)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "walk"), [(FILE, walk_program), (BLOB, walk_graph)])
def test_each_word_at_its_extremes(data: bytes, walk: Callable[[bytes], object]) -> None:
    results = [
        walk(data[:at] + struct.pack("<I", value) + data[at + 4 :]) is not None
        for at in range(0, min(len(data), TABLES_END), 4)
        for value in EXTREMES
    ]
    assert any(results) and not all(results)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    walk_program(data)
    walk_program(FILE[:8] + data)
    walk_graph(data)
    walk_graph(BLOB[:30] + data)


mutations = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.one_of(st.sampled_from(EXTREMES), st.integers(0, 2**32 - 1))),
    min_size=1,
    max_size=6,
)


def mutate(data: bytes, changes: list[tuple[float, int]]) -> bytes:
    """``data`` with words overwritten: a position is a fraction of the whole."""
    mutated = bytearray(data)
    for fraction, value in changes:
        struct.pack_into("<I", mutated, int(fraction * (len(data) - 3)), value)
    return bytes(mutated)


@settings(max_examples=200, deadline=None)
@given(mutations)
@example([(0.0, 2**32 - 1)])
def test_overwritten_words(changes: list[tuple[float, int]]) -> None:
    walk_program(mutate(FILE, changes))
    walk_graph(mutate(BLOB, changes))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=8))
def test_flipped_bits(flips: list[tuple[float, int]]) -> None:
    for data, walk in ((FILE, walk_program), (BLOB, walk_graph)):
        mutated = bytearray(data)
        for fraction, bit in flips:
            mutated[int(fraction * len(data))] ^= 1 << bit
        walk(bytes(mutated))
