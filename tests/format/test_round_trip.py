"""Files read, written and read again are equal in meaning, to us and to executorch; and they still run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executorch.backends.vulkan.serialization.vulkan_graph_serialize import (
    extract_vk_flatbuffer,
    flatbuffer_to_vk_graph,
    serialize_vulkan_graph,
)
from executorch.exir._serialize._program import PTEFile, deserialize_pte_binary, serialize_pte_binary

from executorch_webgpu import Runtime
from executorch_webgpu.format.program_schema import Program
from executorch_webgpu.format.pte import LazySegment, ProgramFile, read_program, save_program, write_program
from executorch_webgpu.format.vkgraph import VkGraph, read_vkgraph, write_vkgraph
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from tests.conformance.pack import manifest
from tests.conftest import SmolLM2
from tests.format.test_against_executorch import plain
from tests.models.tiny_gguf import TinyGguf
from tests.models.tiny_llama import TinyLlama
from tests.test_llama import TURNS, turns

PIECE = 1 << 20


@pytest.mark.parametrize("name", sorted({case["pte"] for case in manifest()}))
def test_the_catalog(conformance_dir: Path, tmp_path: Path, name: str) -> None:
    check_round_trip(conformance_dir / name, tmp_path / "again.pte")


def test_tiny_llamas(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    check_round_trip(tiny_llama.program, tmp_path / "again.pte")
    assert logits(tmp_path / "again.pte") == logits(tiny_llama.program)


def test_smollm2(smollm2: SmolLM2, tmp_path: Path) -> None:
    check_round_trip(smollm2.program, tmp_path / "again.pte")


def test_ours_through_executorch(tmp_path: Path) -> None:
    """A converted model that executorch has read and written is the same program."""
    TinyGguf(vocab=303).write(tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "ours.pte", LlamaOptions(max_seq_len=32, max_context_len=64))
    (tmp_path / "theirs.pte").write_bytes(rewritten_by_executorch((tmp_path / "ours.pte").read_bytes()))
    ours, theirs = (read_program((tmp_path / name).read_bytes()) for name in ("ours.pte", "theirs.pte"))
    assert theirs.named_data == ours.named_data
    assert graphs(theirs) == graphs(ours)
    for plan, rewritten in zip(ours.methods, theirs.methods, strict=True):
        # A delegate says in which segment it is, and that may change.
        expected, got = (dataclasses.replace(p, delegates=()) for p in (plan, rewritten))
        assert got == expected
    assert logits(tmp_path / "theirs.pte") == logits(tmp_path / "ours.pte")


def test_a_difference_is_noticed(tmp_path: Path) -> None:
    """The comparison itself: one operand of one call, and one byte of a constant."""
    TinyGguf().write(tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "model.pte", LlamaOptions(max_seq_len=8, max_context_len=8))
    file = read_program((tmp_path / "model.pte").read_bytes())
    (graph,) = graphs(file)
    first, *rest = graph.chain
    swapped = dataclasses.replace(graph, chain=(dataclasses.replace(first, args=first.args[::-1]), *rest))
    last = bytes(file.segments[-1])
    damaged: list[list[bytes | memoryview]] = [
        [b"", write_blob(swapped), *file.segments[2:]],
        [*file.segments[:-1], last[:-1] + bytes([last[-1] ^ 1])],
    ]
    for segments in damaged:
        with pytest.raises(AssertionError):
            assert_same(file, read_program(write_program(file.program, segments)))


def check_round_trip(source: Path, target: Path) -> None:
    """Writes the file ``source`` again, and its graphs too; raises AssertionError unless ``target`` means the same."""
    data = source.read_bytes()
    file = read_program(data)
    save_program(target, file.program, rewritten_segments(file))
    again = target.read_bytes()
    assert_same(file, read_program(again))
    assert as_executorch_reads(again) == as_executorch_reads(data)


def rewritten_segments(file: ProgramFile) -> list[bytes | LazySegment]:
    """Delegates are written anew; other segments go over in pieces."""
    segments: list[bytes | LazySegment] = [
        LazySegment(len(segment), partial(pieces, segment)) for segment in file.segments
    ]
    for index, graph in zip(delegate_segments(file.program), graphs(file), strict=True):
        segments[index] = write_blob(graph)
    return segments


def pieces(data: memoryview) -> Iterator[memoryview]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def write_blob(graph: VkGraph) -> bytes:
    constants = zip(graph.constants, graph.constant_views, strict=True)
    return write_vkgraph(graph, [where if where.named_key else data for where, data in constants])


def assert_same(file: ProgramFile, again: ProgramFile) -> None:
    """The programs are equal apart from where segments lie, and so is all data; delegates are equal graphs."""
    assert without_segments(again.program) == without_segments(file.program)
    assert graphs(again) == graphs(file)
    delegates = delegate_segments(file.program)
    assert len(again.segments) == len(file.segments)
    for i, (data, expected) in enumerate(zip(again.segments, file.segments, strict=True)):
        assert i in delegates or bytes(data) == bytes(expected)
    assert again.named_data.keys() == file.named_data.keys()
    for name, data in file.named_data.items():
        assert bytes(again.named_data[name]) == bytes(data)


def without_segments(program: Program) -> Program:
    return dataclasses.replace(program, segments=())


def delegate_segments(program: Program) -> list[int]:
    return [delegate.processed.index for plan in program.execution_plan for delegate in plan.delegates]


def graphs(file: ProgramFile) -> list[VkGraph]:
    delegates = [delegate for plan in file.methods for delegate in plan.delegates]
    return [read_vkgraph(file.delegate_data(delegate), file.named_data) for delegate in delegates]


def as_executorch_reads(data: bytes) -> list[Any]:
    """The program, the graphs of its delegates, and the data that belongs to them."""
    file = deserialize_pte_binary(data)
    delegates = [bytes(delegate.data) for delegate in file.program.backend_delegate_data]
    file.program.backend_delegate_data = []
    named = file.named_data
    stored = {key: bytes(named.buffers[e.buffer_index]) for key, e in named.pte_data.items()} if named else {}
    return [plain(file.program), plain(file.mutable_data), stored, [theirs(blob) for blob in delegates]]


def theirs(blob: bytes) -> Any:
    return flatbuffer_to_vk_graph(extract_vk_flatbuffer(blob))


def rewritten_by_executorch(data: bytes) -> bytes:
    """The file that executorch's readers and writers make of a file, its delegates included."""
    file = deserialize_pte_binary(data)
    for delegate in file.program.backend_delegate_data:
        graph = theirs(bytes(delegate.data))
        constants = [(constant.named_key, constant.length) for constant in graph.constants]
        graph.constants = []
        delegate.data = serialize_vulkan_graph(graph, constants, [])
    whole = PTEFile(file.program, mutable_data=file.mutable_data, named_data=file.named_data)
    return bytes(serialize_pte_binary(whole, extract_delegate_segments=True))


def logits(path: Path) -> list[bytes]:
    """Of every turn, bit for bit."""
    with Runtime.get().load_program(path) as program, program.load_method("forward") as forward:
        return [np.ascontiguousarray(step).tobytes() for step in turns(forward, TURNS)]
