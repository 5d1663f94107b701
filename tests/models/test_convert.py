"""The file that a conversion leaves: all of it, or nothing; readable by executorch; and the command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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
from executorch_webgpu.models.matrix import EmbeddingFormat, WeightFormat
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.format.test_against_executorch import plain
from tests.models.tiny_gguf import TinyGguf
from tests.text.tiny_vocabulary import BPE_TOKENS

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

    def count(done: int, total: int) -> None:
        progress.append((done, total))

    convert(folder / "model.gguf", tmp_path / "m.pte", OPTIONS, on_progress=count)
    assert (tmp_path / "m.pte").read_bytes() == (folder / "model.pte").read_bytes()
    assert progress == sorted(progress)
    assert progress[-1][0] == progress[-1][1]


@pytest.mark.parametrize(
    ("options", "constants"),
    [
        (LlamaOptions("q4gsw", "f32"), {""}),
        (LlamaOptions("q4gsw"), {"", ".q8csw.packed", ".q8csw.scales"}),
        (LlamaOptions("q4gsw", "q4gsw", "q4gsw"), {f".q4gsw32.{part}" for part in ("packed", "scales", "row_scales")}),
        (LlamaOptions("native"), {".q8gsw32.packed", ".q8gsw32.scales"}),
    ],
    ids=["f32", "default", "q4gsw", "native"],
)
def test_a_tied_head_shares_the_embedding(tmp_path: Path, options: LlamaOptions, constants: set[str]) -> None:
    TinyGguf(tied_head=True).write(tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "m.pte", replace(options, max_seq_len=8, max_context_len=8))
    names = read_program((tmp_path / "m.pte").read_bytes()).named_data.keys()
    found = {name.removeprefix("token_embd.weight") for name in names if name.startswith("token_embd")}
    assert found == constants


@pytest.mark.parametrize(
    ("weights", "embedding", "error"),
    [
        ("f32", "f32", 1e-5),
        ("q8csw", "f32", 0.02),
        ("q8gsw", "q8gsw", 0.02),
        ("native", None, 0.02),  # what is stored in 5 or 6 bits becomes 8, in blocks of 32
        ("q4gaw", "q4gaw", 0.3),
        ("q4gsw", "q4gsw", 0.4),
    ],
)
@pytest.mark.parametrize("full_logits", [False, True])
def test_every_format(
    tmp_path: Path, weights: WeightFormat, embedding: EmbeddingFormat | None, error: float, full_logits: bool
) -> None:
    model = TinyGguf("qwen2", qkv_bias=True)
    floats = model.write(tmp_path / "m.gguf")
    options = LlamaOptions(weights, weights, embedding, max_seq_len=9, max_context_len=16, full_logits=full_logits)
    convert(tmp_path / "m.gguf", tmp_path / "m.pte", options)
    tokens = np.random.default_rng(2).integers(0, model.vocab, 7).tolist()
    with Runtime.get().load_program(tmp_path / "m.pte") as program, program.load_method("forward") as forward:
        (logits,) = forward.execute([np.array([tokens], np.int64), np.array([0], np.int64)])
    assert logits.shape == ((1, len(tokens), model.vocab) if full_logits else (1, model.vocab))
    for row, length in zip(logits.reshape(-1, model.vocab)[::-1], (7, 6, 5), strict=False):
        expected = model.logits(floats, tokens[:length])
        assert np.linalg.norm(row - expected) < error * np.linalg.norm(expected)


def test_a_program_carries_its_tokenizer(bpe_file: Path, tmp_path: Path) -> None:
    TinyGguf(vocab=len(BPE_TOKENS)).write(tmp_path / "m.gguf")
    for tokenizer in (None, bpe_file):
        convert(tmp_path / "m.gguf", tmp_path / "m.pte", OPTIONS, tokenizer=tokenizer)
        with Runtime.get().load_program(tmp_path / "m.pte") as program:
            if tokenizer is None:
                assert not {"tokenizer.json", "tokenizer_config.json"} & set(program.named_data)
                assert not {"get_bos_id", "get_eos_ids"} & program.method_names
                continue
            inside, stated = Tokenizer.from_files(program.named_data), Tokenizer.from_file(bpe_file)
            assert inside.settings == stated.settings
            assert inside.encode("hello 12") == stated.encode("hello 12")
            assert set(program.inspect().files) == set(stated.files())
            assert program.load_method("get_eos_ids").execute([]) == sorted(stated.eos_ids)
            assert program.load_method("get_bos_id").execute([]) == [stated.settings.bos_id]


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
