from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.gpu.head import read_variant
from executorch_webgpu.gpu.kernel import head_of
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
        assert (operator.where, operator.why) == ("device", "delegated")
        row = rf"^\s*{re.escape(operator.name)}\s+{operator.count}\s+GPU\s+delegated\s*$"
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


def test_lists_the_kernels_of_a_program_as_the_kernel_command_takes_them(cli: Cli, tiny_llama: TinyLlama) -> None:
    result = cli("inspect", "--kernels", tiny_llama.program)
    assert result.exit_code == 0, result.stderr
    with Runtime.get().load_program(tiny_llama.program) as program, program.load_method("forward") as method:
        uses = method.kernels()
    assert len(uses) > 3 and uses[0].dispatches > 0
    for use in uses:
        head_of(use.kernel).check(use.kernel, read_variant(use.variant))
        assert re.search(rf"^\s*{re.escape(use.kernel)}\s.*\s{use.dispatches}\s", result.stdout, re.MULTILINE)
    shown = cli("kernel", uses[0].kernel, "--variant", uses[0].variant)
    assert shown.exit_code == 0, shown.stderr


def test_kernels_follow_the_dims_of_the_last_step(tiny_llama: TinyLlama) -> None:
    with Runtime.get().load_program(tiny_llama.program) as program, program.load_method("forward") as method:
        loaded = method.kernels()
        method.execute([np.zeros((1, 1), np.int64), np.zeros(1, np.int64)])
        stepped = method.kernels()
    assert {(use.kernel, use.variant) for use in stepped} == {(use.kernel, use.variant) for use in loaded}
    counts = [{(use.kernel, use.variant): use.dispatches for use in uses} for uses in (stepped, loaded)]
    assert counts[0] != counts[1]
