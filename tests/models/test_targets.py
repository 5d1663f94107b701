"""Where a program cannot be written is said before anything is done, in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from executorch_webgpu.cli import main
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.models.convert import check_target, convert
from executorch_webgpu.models.llama import LlamaOptions
from tests.models.tiny_gguf import TinyGguf
from tests.models.tiny_huggingface import TinyHuggingFace

OPTIONS = LlamaOptions("f32", max_seq_len=9, max_context_len=32)
TINY = TinyGguf(dim=32, head_dim=8, ffn=32, layers=1)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (".", "is a folder: name a file to write, such as model.pte"),
        ("", "is a folder"),
        ("..", "is a folder"),
        ("folder", "folder is a folder: name a file to write, such as folder/model.pte"),
        ("folder/", "is a folder"),
        ("none/m.pte", "none: No such file or directory, to write m.pte into: make it first"),
        ("text.txt/m.pte", "text.txt: No such file or directory"),
        ("/dev/null", "is not a regular file"),
    ],
)
def test_what_is_no_file_to_write(target: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TINY.write(tmp_path / "m.gguf")
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(InvalidInputError, match=said):
        convert("m.gguf", target, OPTIONS)
    # The command says so without looking for the model.
    result = CliRunner().invoke(main, ["convert", "no/such/model", "-o", target])
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "m.gguf", "text.txt"]
    assert not list((tmp_path / "folder").iterdir())


def test_a_folder_that_may_not_be_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InvalidInputError, match="files cannot be written into the folder"):
        check_target(tmp_path / "m.pte")


def test_no_file_of_the_source_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    TinyGguf(dim=32, head_dim=8, ffn=32, layers=1, parts=2).write(tmp_path / "parts" / "m.gguf")
    TinyHuggingFace().write(tmp_path / "folder")
    for source in (tmp_path / "parts" / "m-00001-of-00002.gguf", tmp_path / "folder"):
        files = list((source if source.is_dir() else source.parent).iterdir())
        before = {file: file.read_bytes() for file in files}
        for file in files:
            with pytest.raises(InvalidInputError, match="is the source itself, or a part of a source"):
                convert(source, file, OPTIONS)
        assert {file: file.read_bytes() for file in files} == before
    convert(tmp_path / "folder", tmp_path / "folder" / "m.pte", OPTIONS)
    tokenizer = tmp_path / "parts" / "tokenizer.json"
    tokenizer.write_text("{}")
    with pytest.raises(InvalidInputError, match="is the source itself"):
        convert(tmp_path / "folder", tokenizer, OPTIONS, tokenizer=tokenizer)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize("command", [["convert", "-o", "m.pte"], ["inspect"]])
def test_a_pointer_of_git_is_no_model(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ET_WEBGPU_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").write_bytes(POINTER)
    TinyHuggingFace().write(tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").write_bytes(POINTER)
    for source in ("m.gguf", "folder"):
        result = CliRunner().invoke(main, [*command, source])
        assert result.exit_code == 2 and "is a pointer of Git LFS, not the file itself" in result.stderr
