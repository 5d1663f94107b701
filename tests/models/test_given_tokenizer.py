"""A tokenizer that is given counts wherever a model is converted, also where its own vocabulary is unknown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from gguf import GGUFValueType

from executorch_webgpu import Runtime
from executorch_webgpu.cli import main
from executorch_webgpu.models.library import find_program
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.models.tiny_gguf import TinyGguf
from tests.models.tiny_huggingface import TinyHuggingFace
from tests.text.tiny_vocabulary import BPE_TOKENS, MERGES

OPTIONS = LlamaOptions("f32", max_seq_len=9, max_context_len=32)
UNKNOWN = (
    ("tokenizer.ggml.model", "gpt2", GGUFValueType.STRING),
    ("tokenizer.ggml.pre", "of-tomorrow", GGUFValueType.STRING),
    ("tokenizer.ggml.tokens", BPE_TOKENS, GGUFValueType.ARRAY),
    ("tokenizer.ggml.merges", MERGES, GGUFValueType.ARRAY),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ET_WEBGPU_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    """A GGUF file whose own vocabulary is not readable here."""
    model = TinyGguf(dim=32, head_dim=8, ffn=32, layers=1, vocab=len(BPE_TOKENS), edits=UNKNOWN)
    model.write(tmp_path / "model.gguf")
    return tmp_path / "model.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose own tokenizer is not readable here."""
    TinyHuggingFace(fields={"vocab_size": len(BPE_TOKENS), "hidden_size": 64, "intermediate_size": 64}).write(
        tmp_path / "folder"
    )
    (tmp_path / "folder" / "tokenizer.json").write_text('{"version": "of tomorrow"}')
    return tmp_path / "folder"


COMMANDS: dict[str, Sequence[str]] = {
    "generate": ["hello 12", "--max-new-tokens", "3"],
    "chat": ["--max-new-tokens", "3"],
    "bench": ["--prompts", "4", "--contexts", "0", "--steps", "2", "--repeats", "1"],
    "perplexity": ["text.txt"],
    "inspect": [],
    "convert": ["-o", "out.pte"],
}


@pytest.mark.parametrize("source", ["unknown", "folder"])
@pytest.mark.parametrize("command", COMMANDS)
def test_it_reaches_every_conversion(
    command: str, source: str, bpe_file: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = request.getfixturevalue(source)
    monkeypatch.chdir(path.parent)
    (path.parent / "text.txt").write_text("hello 12 hello hello")
    arguments = [command, str(path), *COMMANDS[command]]
    without = CliRunner().invoke(main, arguments, input="hello\n")
    assert without.exit_code == 2 and without.stderr.count("\n") == 1 and "tokenizer.json" in without.stderr
    given = CliRunner().invoke(main, [*arguments, "--tokenizer", str(bpe_file)], input="hello\n")
    assert given.exit_code == 0, given.stderr
    programs = [*(path.parent / "cache" / "programs").glob("*.pte"), *path.parent.glob("out.pte")]
    assert len(programs) == 1
    with Runtime.get().load_program(programs[0]) as program:
        inside = Tokenizer.from_files(program.named_data)
    assert inside.files() == Tokenizer.from_file(bpe_file).files()


def test_it_decides_which_program_is_kept(unknown: Path, bpe_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    files = Tokenizer.from_file(bpe_file).files()
    for name, content in files.items():
        (other / name).write_bytes(content)
    first = find_program(str(unknown), OPTIONS, tokenizer=bpe_file)
    # The same in other files is the same.
    assert find_program(str(unknown), OPTIONS, tokenizer=Tokenizer.from_file(bpe_file)) == first
    config = json.loads(files["tokenizer_config.json"])
    (other / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "another"}))
    second = find_program(str(unknown), OPTIONS, tokenizer=other)
    assert second != first
    with Runtime.get().load_program(second) as program:
        assert Tokenizer.from_files(program.named_data).settings.chat_template == "another"
