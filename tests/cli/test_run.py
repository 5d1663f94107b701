from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.cli.run import fit_input, read_input
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.runtime.metadata import TensorMetadata
from tests.cli.conftest import Cli
from tests.models.tiny_llama import TinyLlama

one_llama = pytest.mark.parametrize("tiny_llama", ["4w"], indirect=True)


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("-7", -7), ("0.5", 0.5), ("1e3", 1000.0), ("true", True), ("False", False)]
)
def test_numbers(text: str, value: Any) -> None:
    read = read_input(text)
    assert read == value and type(read) is type(value)


def test_npy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6, dtype=np.int64).reshape(2, 3))
    np.testing.assert_array_equal(read_input(str(tmp_path / "x.npy")), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_unreadable_npy_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"x\.npy is not a readable \.npy file"):
        read_input(str(tmp_path / "x.npy"))


def test_npy_file_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object))
    with pytest.raises(InvalidInputError, match="not a readable"):
        read_input(str(tmp_path / "x.npy"))


def test_number_for_a_tensor_of_one_element() -> None:
    fitted = fit_input(3, TensorMetadata("int64", (1, 1)))
    assert fitted.dtype == np.int64 and fitted.tolist() == [[3]]
    assert fit_input(0.5, TensorMetadata("float32", ())).shape == ()


def test_number_for_anything_else_stays_a_number() -> None:
    assert fit_input(3, TensorMetadata("int", is_tensor=False)) == 3
    assert fit_input(3, TensorMetadata("int64", (1, 4))) == 3


def test_number_that_does_not_fit() -> None:
    with pytest.raises(InvalidInputError, match="1000 does not fit uint8"):
        fit_input(1000, TensorMetadata("uint8", (1,)))


@one_llama
def test_writes_what_the_runtime_computes(cli: Cli, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    tokens = np.array([[1, 5, 3]], np.int64)
    np.save(tmp_path / "tokens.npy", tokens)
    folder = tmp_path / "new" / "folder"
    result = cli("run", tiny_llama.program, "--input", tmp_path / "tokens.npy", "--input", 0, "--output", folder)
    assert result.exit_code == 0, result.stderr
    with Runtime.get().load_program(tiny_llama.program) as program, program.load_method("forward") as forward:
        (expected,) = forward.execute([tokens, np.array([0], np.int64)])
    written = np.load(folder / "output_0.npy")
    np.testing.assert_array_equal(written, expected)
    assert re.search(rf"0\s+float32\s+{re.escape(str(list(expected.shape)))}", result.stdout)
    assert f"{expected.max():.6g}" in result.stdout


@one_llama
def test_profile(cli: Cli, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.array([[1]], np.int64))
    result = cli("run", tiny_llama.program, "--input", tmp_path / "tokens.npy", "--input", 0, "--profile")
    assert result.exit_code == 0, result.stderr
    assert "Time per op" in result.stderr and "sdpa_with_kv_cache" in result.stderr


@one_llama
def test_constant_method(cli: Cli, tiny_llama: TinyLlama) -> None:
    result = cli("run", tiny_llama.program, "--method", "get_n_layers")
    assert result.exit_code == 0
    assert re.search(rf"0\s+int64\s+\[\]\s+{tiny_llama.geometry.n_layers}\b", result.stdout)


@one_llama
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "forward takes 2 inputs .* 0 were given"),
        (["--input", "1", "--input", "2", "--input", "3"], "3 were given"),
        (["--input", "missing.npy", "--input", "0"], "missing.npy: No such file or directory"),
        (["--input", "1.5", "--input", "0"], "input 0"),
        (["--method", "backward"], "no method 'backward'"),
        (["--input", "1", "--input", "0", "--adapter", "no such adapter"], "no such adapter"),
    ],
    ids=["none", "three", "missing", "dtype", "method", "adapter"],
)
def test_bad_input(cli: Cli, tiny_llama: TinyLlama, arguments: list[str], message: str) -> None:
    result = cli("run", tiny_llama.program, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.fullmatch(rf"error: .*{message}.*\n", result.stderr)
