"""The benchmark of memory-bound operators: lines with times for outputs that are right, and only for these."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench import bench_memory_bound
from bench.bench_memory_bound import Line, main, measure, summary
from bench.memory_cases import Case, Input, cases, named
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.registry import find
from tests.ops.harness import OpProgram, Out, call_graph

CASES = list(cases(16))
SUM = Case("reductions", "sum", "aten.sum.dim_IntList", [Input((8, 32)), [1], False, None], Out((8,)))
Array = np.ndarray


@pytest.fixture(autouse=True)
def short_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_memory_bound, "PASS_SECONDS", 1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.family}, {c.name}")
def test_every_case_can_be_planned(case: Case) -> None:
    assert find(case.op) is not None, "the benchmark would call it missing"
    graph = build_graph(call_graph(case.op, case.args, case.out))
    assert plan_graph(graph, Planning(Features.none(), Limits.floor())).plans[-1].dispatches


def test_names_are_unique_and_families_complete() -> None:
    assert len({(c.family, c.name) for c in CASES}) == len(CASES)
    families = (
        "elementwise",
        "broadcast",
        "permute",
        "cat",
        "slice",
        "pad",
        "gather",
        "softmax",
        "norms",
        "reductions",
    )
    assert {c.family for c in CASES} == {*families, "cumsum", "pooling", "upsample", "sort"}
    assert {c.family for c in CASES if not c.bound} == {"sort"}


def test_bytes_are_those_of_inputs_and_results() -> None:
    moved = {f"{c.family}, {c.name}": c.nbytes for c in CASES}
    tensor = 4 << 16
    assert moved["elementwise, add"] == 3 * tensor and moved["softmax, columns"] == 2 * tensor
    assert moved["slice, every second column"] == tensor
    assert moved["reductions, sum, rows of int8"] == tensor + 4 * 256


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "memory.csv"
    assert (
        main(["--megabytes", "1", "--only", "sum, columns", "slice: half", "half of each row", "--csv", str(path)]) == 0
    )
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["half of each row from 0", "half of each row from 3", "sum, columns"]
    assert all(float(row[name]) > 0 for row in rows for name in ("microseconds", "rate", "ratio"))
    printed = capsys.readouterr().out
    assert "a copy of 1 MB moves" in printed and "of 3 take at most 1.5 times a copy" in printed


@pytest.mark.parametrize(
    "tamper",
    [lambda out: 1.01 * out, lambda out: out[::-1], lambda out: np.full_like(out, np.nan), lambda out: out[:3]],
    ids=["scaled", "reversed", "not written", "cut off"],
)
def test_a_wrong_result_gets_no_time(
    device: Device, monkeypatch: pytest.MonkeyPatch, tamper: Callable[[Array], Array]
) -> None:
    right = OpProgram.run
    monkeypatch.setattr(OpProgram, "run", lambda self, inputs: tamper(right(self, inputs)))
    line = measure(device, SUM, 1e9)
    assert line.note.startswith("WRONG") and line.microseconds is None
    assert summary([line], software=True) == 1


def test_two_runs_must_agree(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    right, runs = OpProgram.run, iter(range(2))
    monkeypatch.setattr(OpProgram, "run", lambda self, inputs: right(self, inputs) * (1 + 1e-6 * next(runs)))
    assert measure(device, SUM, 1e9).note == "WRONG: two runs differ"


def test_missing_and_impossible_calls_are_named(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = Case("reductions", "unknown", "aten.nothing.default", SUM.args, SUM.out)
    impossible = Case("reductions", "impossible", SUM.op, [Input((8, 32)), [5], False, None], SUM.out)
    lines = [measure(device, case, 1e9) for case in (SUM, unknown, impossible)]
    assert lines[0].ratio is not None and lines[0].note == ""
    assert lines[1].note == "missing" and lines[2].note.startswith("cannot run: ")
    assert summary(lines, software=True) == 1
    assert "missing: reductions (unknown)" in capsys.readouterr().out


def test_what_misses_the_aim_fails_on_a_gpu() -> None:
    slow = Line("", "", "", "softmax", "rows", SUM.op, 1.0, 2.0, 3.0, 1.51, "")
    assert summary([slow], software=False) == 1 and summary([slow], software=True) == 0


def test_cases_are_found_by_words() -> None:
    assert {c.family for c in named(CASES, ["softmax", "cumsum"])} == {"softmax", "cumsum"}
    assert named(CASES, []) == CASES
