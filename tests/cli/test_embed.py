from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.encoder import EncoderOptions
from tests.cli.conftest import Cli
from tests.llm.exported_encoders import FOLDER
from tests.models.tiny_encoder import TinyEncoder
from tests.models.tiny_gguf import TinyGguf
from tests.ops.harness import assert_close
from tests.text.tiny_vocabulary import write_bpe

MODEL = TinyEncoder(fields={"vocab_size": 400}, poolings=("mean",))


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bpe(tmp_path_factory.mktemp("vocabulary") / "vocabulary.gguf")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    convert(MODEL.write(folder / "model"), folder / "m.pte", EncoderOptions("f32", max_batch=2), tokenizer=vocabulary)
    return folder / "m.pte"


def test_vectors_as_numbers_and_as_json(cli: Cli, program: Path, tmp_path: Path) -> None:
    result = cli("embed", program, "hello", "12 hello 12")
    assert result.exit_code == 0, result.stderr
    vectors = np.array([[float(x) for x in line.split("\t")] for line in result.stdout.splitlines()])
    assert vectors.shape == (2, 24) and "2 texts" in result.stderr and "vectors of 24" in result.stderr
    (tmp_path / "texts").write_text("hello\n\n12 hello 12\n")
    lines = [
        json.loads(line) for line in cli("embed", program, "--file", tmp_path / "texts", "--json").stdout.splitlines()
    ]
    assert [line["text"] for line in lines] == ["hello", "12 hello 12"]
    assert_close(np.array([line["embedding"] for line in lines]), vectors)
    assert lines[0]["tokens"] < lines[1]["tokens"]
    unit = cli("embed", program, "-", "--normalize", "--json", input="hello\n")
    assert abs(np.linalg.norm(json.loads(unit.stdout)["embedding"]) - 1) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give texts to embed"),
        (["hello", "--file", "x"], "give texts to embed"),
        (["hello " * 50], "but there is room for 41: shorten it"),
        (["hello", "--pooling", "cls"], "one vector of each text already"),
        (["hello", "--weights", "f32"], "is a program already"),
    ],
)
def test_bad_input(cli: Cli, program: Path, arguments: list[str], message: str) -> None:
    result = cli("embed", program, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and "Traceback" not in result.stderr


def test_a_long_text_is_cut_on_request(cli: Cli, program: Path) -> None:
    assert cli("embed", program, "hello " * 50, "--truncate").exit_code == 0


def test_a_program_without_a_tokenizer(cli: Cli, vocabulary: Path) -> None:
    result = cli("embed", FOLDER / "states.pte", "hello")
    assert result.exit_code == 2 and "has no tokenizer inside: name one with --tokenizer" in result.stderr
    result = cli("embed", FOLDER / "states.pte", "hello", "--tokenizer", vocabulary)
    assert result.exit_code == 2 and "name the pooling" in result.stderr


def test_converting_an_encoder(cli: Cli, tmp_path: Path) -> None:
    folder = MODEL.write(tmp_path / "model")
    target = tmp_path / "m.pte"
    chosen = ("--weights", "f32", "--max-batch", 3, "--max-seq-len", 9, "--pooling", "cls", "--normalize")
    result = cli("convert", folder, "-o", target, *chosen)
    assert result.exit_code == 0, result.stderr
    convert(folder, tmp_path / "n.pte", EncoderOptions("f32", None, 32, 9, 3, "cls", True))
    assert target.read_bytes() == (tmp_path / "n.pte").read_bytes()
    assert cli("convert", folder, "-o", target).exit_code == 0  # 8 bits where rows are whole groups, else float32


def test_options_of_the_other_kind_are_named(cli: Cli, tmp_path: Path) -> None:
    folder, target = MODEL.write(tmp_path / "model"), tmp_path / "m.pte"
    TinyGguf().write(tmp_path / "model.gguf")
    for source, options, match in (
        (folder, ("--head", "f32", "--full-logits"), "only language models take --head and --full-logits"),
        (
            tmp_path / "model.gguf",
            ("--max-batch", 2, "--no-normalize"),
            "only encoders take --max-batch and --normalize",
        ),
    ):
        result = cli("convert", source, "-o", target, *options)
        assert result.exit_code == 2 and match in result.stderr
    assert not target.exists()
