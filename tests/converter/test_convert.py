"""The file that a conversion leaves: all of it, or nothing; readable by executorch; and the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from executorch.backends.vulkan.serialization.vulkan_graph_serialize import (
    extract_vk_flatbuffer,
    flatbuffer_to_vk_graph,
)
from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program
from executorch.exir._serialize._program import deserialize_pte_binary

from executorch_webgpu import InvalidProgramError, Runtime
from executorch_webgpu.cli import main
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.format.flatbuffer import read_root
from executorch_webgpu.format.program_schema import Program
from executorch_webgpu.format.pte import LazySegment, read_program, save_program, write_program
from executorch_webgpu.format.vkgraph import GraphTable
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from tests.converter.tiny_gguf import TinyGguf
from tests.format.test_against_executorch import plain

OPTIONS = LlamaOptions(max_seq_len=17, max_context_len=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.gguf, and model.pte, converted of it."""
    folder = tmp_path_factory.mktemp("converted")
    TinyGguf().write(folder / "model.gguf")
    convert(folder / "model.gguf", folder / "model.pte", OPTIONS)
    return folder


def lazy(*pieces: bytes) -> LazySegment:
    return LazySegment(sum(map(len, pieces)), lambda: pieces)


def test_saving_in_pieces_is_writing(tmp_path: Path) -> None:
    counts: list[int] = []
    save_program(tmp_path / "m.pte", Program(), [b"", b"abc", lazy(b"de", b"", b"f" * 1000)], counts.append)
    assert (tmp_path / "m.pte").read_bytes() == write_program(Program(), [b"", b"abc", b"de" + b"f" * 1000])
    assert sum(counts) == 1005


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield b"abc"
        raise KeyboardInterrupt

    target = tmp_path / "m.pte"
    for before in (None, b"old"):
        if before is not None:
            target.write_bytes(before)
        with pytest.raises(KeyboardInterrupt):
            save_program(target, Program(), [LazySegment(6, interrupted)])
        assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["m.pte"])
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("size", [2, 4])
def test_a_segment_that_is_not_as_large_as_it_said(tmp_path: Path, size: int) -> None:
    with pytest.raises(InvalidProgramError, match=f"{size} bytes cannot be filled with 3"):
        save_program(tmp_path / "m.pte", Program(), [b"x", LazySegment(size, lambda: [b"abc"])])
    assert not list(tmp_path.iterdir())


def test_executorch_reads_the_program(folder: Path) -> None:
    data = (folder / "model.pte").read_bytes()
    ours, theirs = read_program(data), _flatbuffer_to_program(data)
    assert plain(theirs) == plain(ours.program)
    named = deserialize_pte_binary(data).named_data
    assert named is not None
    stored = {key: named.buffers[entry.buffer_index] for key, entry in named.pte_data.items()}
    assert stored.keys() == ours.named_data.keys()
    assert all(bytes(ours.named_data[key]) == bytes(stored[key]) for key in stored)


def test_executorch_reads_the_graph(folder: Path) -> None:
    file = read_program((folder / "model.pte").read_bytes())
    flatbuffer = extract_vk_flatbuffer(bytes(file.delegate_data(file.methods[0].delegates[0])))
    assert plain(flatbuffer_to_vk_graph(flatbuffer))[1:] == plain(read_root(GraphTable, flatbuffer, b"VK00"))[1:]


def test_converting_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    convert(folder / "model.gguf", tmp_path / "m.pte", OPTIONS, lambda done, total: progress.append((done, total)))
    assert (tmp_path / "m.pte").read_bytes() == (folder / "model.pte").read_bytes()
    assert progress == sorted(progress)
    assert progress[-1][0] == progress[-1][1]


def test_a_tied_head_in_float32_is_the_embedding(tmp_path: Path) -> None:
    TinyGguf(tied_head=True).write(tmp_path / "m.gguf")
    for options, head in (
        (LlamaOptions("q4gsw", "f32", max_seq_len=8, max_context_len=8), set()),
        (LlamaOptions("q4gsw", max_seq_len=8, max_context_len=8), {"token_embd.weight.q4", "token_embd.weight.scales"}),
    ):
        convert(tmp_path / "m.gguf", tmp_path / "m.pte", options)
        names = read_program((tmp_path / "m.pte").read_bytes()).named_data.keys()
        assert {name for name in names if name.startswith("token_embd")} == {"token_embd.weight"} | head


def test_the_source_is_never_overwritten(folder: Path) -> None:
    before = (folder / "model.gguf").read_bytes()
    with pytest.raises(InvalidInputError, match="source itself"):
        convert(folder / "model.gguf", folder / "." / "model.gguf", OPTIONS)
    assert (folder / "model.gguf").read_bytes() == before


def test_the_command(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.pte"
    options = ["--max-seq-len", "17", "--max-context-len", "48", "--head", "f32", "--group", "64"]
    result = CliRunner().invoke(main, ["convert", str(folder / "model.gguf"), "-o", str(target), *options])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert f"Wrote {target}:" in result.stderr
    with Runtime.get().load_program(target) as program, program.load_method("forward") as forward:
        (logits,) = forward.execute([np.array([[1, 2, 3]], np.int64), np.array([0], np.int64)])
        assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.gguf", "--max-context-len", "99999"], "trained for 64 tokens"),
        (["none.gguf"], "none.gguf"),
        (["model.pte"], "not a GGUF file"),
    ],
)
def test_the_command_refuses_in_one_line(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    source, *rest = arguments
    result = CliRunner().invoke(main, ["convert", str(folder / source), "-o", str(tmp_path / "m.pte"), *rest])
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_command_names_a_folder_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "none" / "m.pte"
    options = ["--max-seq-len", "17", "--max-context-len", "48"]
    result = CliRunner().invoke(main, ["convert", str(folder / "model.gguf"), "-o", str(target), *options])
    assert result.exit_code == 2
    assert "No such file or directory" in result.stderr
