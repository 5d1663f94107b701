"""Who loads a program says what is fused, and ``inspect`` what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.models import SHAPES, write_llama
from executorch_webgpu import InvalidInputError, Program, Runtime
from executorch_webgpu.cli import main
from executorch_webgpu.graph.fusion import FUSIONS, FusionReport, chosen_fusions
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import inspect_program


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "model.pte"
    write_llama(path, SHAPES["tiny"], LlamaOptions(max_seq_len=9, max_context_len=16))
    return path


@pytest.fixture(scope="module")
def program(path: Path) -> Iterator[Program]:
    with Runtime.get().load_program(path) as program:
        yield program


def test_all_none_or_some() -> None:
    assert chosen_fusions(True) == tuple(FUSIONS)
    assert chosen_fusions(False) == chosen_fusions([]) == ()
    assert chosen_fusions("gate") == ("gate",)
    assert chosen_fusions({"residual", "views"}) == ("views", "residual"), "in the order of the passes"


def test_an_unknown_name_is_refused_in_one_sentence(program: Program) -> None:
    with pytest.raises(InvalidInputError, match=r"^there is no fusion 'everything'; choose linear, .*elementwise$"):
        program.load_method("forward", fuse=["views", "everything"])


@pytest.mark.parametrize(("fuse", "fused"), [(True, True), (False, False), (["residual"], False)])
def test_loading(program: Program, fuse: bool | list[str], fused: bool) -> None:
    with program.load_method("forward", fuse=fuse, profile=True) as method:
        calls = {call.name for executor in method._executors for call in executor.graph.calls}
    assert ("et_webgpu.rope_sdpa_with_kv_cache.default" in calls) is fused
    assert ("et_webgpu.fused_linear.default" in calls) is bool(fuse)


def test_reports(path: Path) -> None:
    (forward,) = (method for method in inspect_program(path).methods if method.name == "forward")
    assert [report.name for report in forward.fusions] == list(FUSIONS)
    by_name = {report.name: report for report in forward.fusions}
    assert (by_name["rope_cache"].fused, by_name["rope_cache"].made) == (2 * 2 + 3, 2)
    assert all(report.before - report.fused + report.made == report.after for report in forward.fusions)
    (plain,) = (method for method in inspect_program(path, fuse=False).methods if method.name == "forward")
    assert plain.fusions == ()
    assert forward.planned_bytes is not None and plain.planned_bytes is not None
    assert forward.planned_bytes <= plain.planned_bytes


def test_reports_of_several_graphs_add_up() -> None:
    assert FusionReport("gate", 5, 1, 20, 16) + FusionReport("gate", 10, 2, 9, 1) == FusionReport("gate", 15, 3, 29, 17)


def test_inspect_has_a_line_for_each_pass(path: Path) -> None:
    lines = CliRunner().invoke(main, ["inspect", str(path)]).stdout.splitlines()
    for name in FUSIONS:
        assert any(re.fullmatch(rf"  fusion +{name}: \d+ calls became \d+, \d+ → \d+", line) for line in lines)
    assert any(re.match(r"  memory +[\d.]+ \w+ planned .* [\d.]+ \w+ are alive at once", line) for line in lines)
    assert "fusion" not in CliRunner().invoke(main, ["inspect", "--no-fuse", str(path)]).stdout


@pytest.mark.parametrize("command", ["generate", "chat", "run", "inspect", "perplexity"])
def test_commands_have_the_switch(command: str) -> None:
    assert "--no-fuse" in CliRunner().invoke(main, [command, "--help"]).stdout


def test_run_without_fusion(path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.array([[3, 1, 4]]))
    arguments = ["run", str(path), "--input", str(tmp_path / "tokens.npy"), "--input", "0", "--profile"]
    fused, plain = (CliRunner().invoke(main, [*arguments, *more]) for more in ([], ["--no-fuse"]))
    assert "fused_linear" in fused.stderr and "fused_linear" not in plain.stderr
