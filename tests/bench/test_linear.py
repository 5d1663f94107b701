"""The benchmark of linear layers: lines come out with times, and only for outputs that are right."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import bench_linear, linear_tunings
from bench.bench_linear import Bench, Line, main
from bench.linear_call import Case, LinearCalls
from bench.linear_tunings import KERNELS, Tuned
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.ceilings import Ceilings
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.fused_linear import WEIGHT_FORMATS
from executorch_webgpu.ops.matmul import gemm, gemm_few, gemm_matrix, gemv
from executorch_webgpu.ops.plan import Planner, Planning

CEILINGS = Ceilings(read=1e9, fma=1e12, matrix=None)
FEW, MANY = Case("q4gsw", 1, (52,), 64), Case("q4gsw", 67, (20, 13), 40, norm=True)
Array = np.ndarray


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_linear, "MAX_COPIES", 3)
    monkeypatch.setattr(bench_linear, "PASS_SECONDS", 1e-5)


def lines(device: Device, case: Case, *routes: str | None, sweep: bool = False) -> list[Line]:
    return list(bench_linear.measure(Bench(device, CEILINGS, "", sweep, routes or [None]), case))


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "linear.csv"
    monkeypatch.setitem(bench_linear.SETS, "must", [FEW, Case("q4gsw", 1, (24, 24), 32, norm=True, gated=True)])
    main(["--rows", "1", "9", "--routes", "gemv", "gemm", "--weight-format", "q8gsw", "--csv", str(path)])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    layers = [(rows_, layer) for rows_ in ("1", "9") for layer in ("N52 K64", "N24+24 K32 norm gated")]
    found = [(r["rows"], r["layer"], r["route"]) for r in rows]
    assert found == [(*layer, route) for layer in layers for route in ("gemv", "gemm")]
    for row in rows:
        assert row["weight_format"] == "q8gsw" and float(row["error"]) < 2e-5
        assert min(float(row[name]) for name in ("microseconds", "rate", "ceiling_rate", "share")) > 0
        assert row["note"] == ("cached" if row["rows"] == "1" else "")
    printed = capsys.readouterr().out
    assert "1 row(s), N52 K64, q8gsw" in printed and printed.count("gemv") == len(rows) / 2


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
@pytest.mark.parametrize("route", ["columns", "gemv", "gemm"])
def test_every_format_and_fusion_is_right(device: Device, weight_format: str, route: str) -> None:
    for rows in (1, 11):
        for fused in ({"norm": True, "gated": True, "residual": True}, {}):
            (line,) = lines(device, Case(weight_format, rows, (12, 12), 64, **fused), route)
            assert line.note in ("", "cached") and line.error is not None and line.error < 1e-5


@pytest.mark.parametrize("case", [FEW, MANY])
@pytest.mark.parametrize(
    "tamper",
    [lambda out: 1.02 * out, lambda out: out[:, ::-1], lambda out: np.full_like(out, np.nan)],
    ids=["scaled", "columns swapped", "not written"],
)
def test_wrong_output_gets_no_time(
    device: Device, monkeypatch: pytest.MonkeyPatch, case: Case, tamper: Callable[[Array], Array]
) -> None:
    right = LinearCalls.run
    monkeypatch.setattr(LinearCalls, "run", lambda self, made: [*right(self, made)[:-1], tamper(right(self, made)[-1])])
    (line,) = lines(device, case)
    assert line.note == "WRONG" and line.microseconds is None and line.rate is None


def test_output_is_poisoned_before_the_check(device: Device) -> None:
    with LinearCalls(device, FEW, 2) as calls, calls.executor(None) as executor:
        assert calls.error(calls.run(executor)) < 1e-5
        executor.state.commands[-1].clear()  # now the last copy dispatches nothing
        executor.state.replay = None
        assert np.isnan(calls.error(calls.run(executor)))


def test_a_sweep_times_every_different_kernel_once(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    small = gemv.Tuning(32, 8, 1, 1, invocations=1, workgroups=1)
    tunings = [Tuned("gemv", small, "a"), Tuned("gemv", small, "the same"), Tuned("gemv", None, "default")]
    monkeypatch.setattr(bench_linear, "of_few_rows", lambda: iter(tunings))
    assert [line.tuning for line in lines(device, FEW, sweep=True)] == ["a", "default"]


@pytest.mark.parametrize("tunings", [linear_tunings.of_few_rows, linear_tunings.of_many_rows])
def test_plans_are_made_with_the_tunings(tunings: Callable[[], Iterator[Tuned]]) -> None:
    defaults = {
        "gemv": gemv.TUNING,
        "gemm": gemm.TUNING,
        "matrix": gemm_matrix.TUNING,
        "matrix_f16": gemm_matrix.TUNING,
        "few": gemm_few.TUNING,
        "few_f16": gemm_few.TUNING,
    }
    for tuned in tunings():
        assert tuned.route is not None
        planning = Planning(Features.none(), Limits.floor(), tunings=tuned.tunings)
        planner = Planner(planning, building=True, may_alias=False)
        default = defaults[tuned.route]
        assert planner.tuning(KERNELS[tuned.route], default) is (tuned.tuning or default)


def test_a_route_that_cannot_run_is_named(device: Device) -> None:
    (line,) = lines(device, replace(MANY, weight_format="f32"), "matrix")  # which takes quantized weights
    assert line.note.startswith("cannot run: ") and line.route == "matrix" and line.microseconds is None


def test_counts() -> None:
    case = Case("q4gsw", 1, (8192, 64), 2048)
    assert case.weight_bytes == (8192 + 64) * (1024 + 64 * 4)
    assert case.operations == 2 * 2048 * (8192 + 64)
    assert Case("q8csw", 3, (5,), 7).weight_bytes == 5 * (7 + 4)
    assert Case("q4gaw", 3, (8,), 64).weight_bytes == 8 * (32 + 2 * 4)
    assert Case("f32", 3, (5,), 7).weight_bytes == 4 * 5 * 7
