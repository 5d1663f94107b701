from __future__ import annotations

import re
from pathlib import Path

import pytest

from executorch_webgpu.runtime import inspect_program
from tests.cli.conftest import Cli
from tests.models.tiny_llama import TinyLlama


def test_shows_methods_and_operators(cli: Cli, tiny_llama: TinyLlama) -> None:
    result = cli("inspect", tiny_llama.program)
    assert result.exit_code == 0
    report = inspect_program(tiny_llama.program)
    (forward,) = (method for method in report.methods if method.name == "forward")
    assert f"{len(report.methods)} methods" in result.stdout
    for method in report.methods:
        assert re.search(rf"^{method.name}$", result.stdout, re.MULTILINE)
    for tensor in (*forward.inputs, *forward.outputs):
        assert str(tensor) in result.stdout
    assert forward.operators
    for operator in forward.operators:
        place = "GPU" if operator.where == "delegate" else "host"
        row = rf"^\s*{re.escape(operator.name)}\s+{operator.count}\s+{place}\s*$"
        assert re.search(row, result.stdout, re.MULTILINE)
    assert "unsupported" not in result.stdout


@pytest.mark.parametrize("content", [b"", b"not a program", b"\0" * 64])
def test_no_program(cli: Cli, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pte").write_bytes(content)
    result = cli("inspect", tmp_path / "bad.pte")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.fullmatch(r"error: .+\n", result.stderr)


def test_missing_file(cli: Cli, tmp_path: Path) -> None:
    result = cli("inspect", tmp_path / "missing.pte")
    assert result.exit_code == 2
    assert re.fullmatch(r"error: .*missing\.pte.*\n", result.stderr)
