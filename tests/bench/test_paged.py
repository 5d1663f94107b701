"""The benchmark of attention over pages: a line for each case, with a time only for outputs that are right."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import bench_paged
from bench.bench_paged import main, measure
from bench.paged_call import Case, PagedCall
from executorch_webgpu.gpu.device import Device

MIXED = Case("mixed", (4, 2), 16, ((20, 1), (0, 11), (7, 1)), page_rows=4)


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_paged, "MAX_COPIES", 2)
    monkeypatch.setattr(bench_paged, "PASS_SECONDS", 1e-5)
    monkeypatch.setattr(bench_paged, "HEADS", (4, 2))


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "paged.csv"
    sizes = ["--head-dims", "16", "--rows", "1", "3", "--contexts", "40", "--routes", "flash_decode"]
    main([*sizes, "--csv", str(path)])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["1 rows at 40", "3 rows at 40"]
    assert all(float(row["microseconds"]) > 0 and float(row["error"]) < 1e-3 for row in rows)
    assert "flash_decode" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["f32", "f16", "int8"])
def test_steps_of_all_kinds_are_right(device: Device, dtype: str) -> None:
    line = measure(device, replace(MIXED, dtype=dtype), "", 1e9)
    assert line.microseconds is not None and line.error is not None and line.error < 5e-3 and line.share is None


def test_wrong_output_gets_no_time(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PagedCall, "run", lambda self: np.ones((1, 13, 4, 16), np.float32))
    line = measure(device, MIXED, "", 1e9)
    assert line.microseconds is None and "WRONG" in line.kernels
