"""Text that a stream's encoding lacks: question marks, in every command, and no traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from executorch_webgpu.cli import main
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from tests.models.tiny_gguf import TinyGguf
from tests.text.tiny_vocabulary import BPE_TOKENS, write_bpe

ENCODINGS = ("ascii", "cp1252", "latin-1", "gbk", "utf-8")
NAME = "модель"

Streams = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of random weights, whose text is any bytes; its tokenizer inside, and its source beside it."""
    folder = tmp_path_factory.mktemp("streams")
    TinyGguf(layers=1, vocab=len(BPE_TOKENS), context_len=128).write(folder / f"{NAME}.gguf")
    options = LlamaOptions("f32", max_seq_len=33, max_context_len=128)
    tokenizer = write_bpe(folder / "vocabulary.gguf")
    convert(folder / f"{NAME}.gguf", folder / f"{NAME}.pte", options, tokenizer=tokenizer)
    return folder


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Runs a command with strict streams of an encoding; what it has written to them."""

    def run(encoding: str, *arguments: object, input: str = "", errors: str = "strict") -> tuple[str, str]:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding, errors))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode()), "utf-8"))
        main([str(argument) for argument in arguments], standalone_mode=False)
        written = []
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            assert isinstance(stream.buffer, io.BytesIO)
            written.append(stream.buffer.getvalue().decode(encoding))
        monkeypatch.undo()
        return written[0], written[1]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_of_a_model(streams: Streams, folder: Path, encoding: str) -> None:
    options = ("--temperature", 5, "--seed", 3, "--max-new-tokens", 40)
    arguments = (folder / f"{NAME}.pte", *options)
    (whole, _), (text, rates) = (streams(e, "generate", *arguments, "hello") for e in ("utf-8", encoding))
    assert "\ufffd" in whole and any(character.isalpha() for character in whole)
    assert text == whole.encode(encoding, "replace").decode(encoding)
    assert rates.startswith("prefill ")
    (whole, _), (text, _) = (streams(e, "chat", *arguments, input="hello\n") for e in ("utf-8", encoding))
    assert len(whole) > 20 and text == whole.encode(encoding, "replace").decode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_names_and_tables(streams: Streams, folder: Path, encoding: str, tmp_path: Path) -> None:
    shown, _ = streams(encoding, "inspect", folder / f"{NAME}.pte")
    assert NAME.encode(encoding, "replace").decode(encoding) in shown and "Operator" in shown
    assert "wgpu" in streams(encoding, "devices")[0]
    output = tmp_path / f"{NAME}-2.pte"
    made = (
        "convert",
        folder / f"{NAME}.gguf",
        "--tokenizer",
        folder / "vocabulary.gguf",
        "-o",
        output,
        "--full-logits",
    )
    _, wrote = streams(encoding, *made, "--weights", "f32", "--max-context-len", 128)
    assert wrote.startswith("Wrote ") and NAME.encode(encoding, "replace").decode(encoding) in wrote
    (tmp_path / f"{NAME}.txt").write_text("hello world", encoding="utf-8")
    assert float(streams(encoding, "perplexity", output, tmp_path / f"{NAME}.txt")[0]) > 1


def test_how_the_user_wants_it_stays(streams: Streams, folder: Path) -> None:
    shown, _ = streams("cp1252", "inspect", folder / f"{NAME}.pte", errors="xmlcharrefreplace")
    assert "".join(f"&#{ord(letter)};" for letter in NAME) in shown


def test_a_text_file_that_is_not_utf8(streams: Streams, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"caf\xe9")
    _, told = streams("utf-8", "perplexity", folder / f"{NAME}.pte", tmp_path / "text.txt")
    assert told == f"error: {tmp_path / 'text.txt'} is not UTF-8 text; save it as such\n"


@pytest.mark.slow
def test_a_whole_process(folder: Path) -> None:
    """Of which the encoding is said by the environment, as a redirected stream on Windows has it."""
    arguments = ("generate", folder / f"{NAME}.pte", "--temperature", 5, "--seed", 3, "--max-new-tokens", 40, "hello")
    result = subprocess.run(
        [sys.executable, "-m", "executorch_webgpu", *map(str, arguments)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert result.returncode == 0 and result.stderr.startswith(b"prefill ") and result.stderr.count(b"\n") == 1
    assert b"?" in result.stdout
