"""The benchmark of partial delegation: its programs are right, and differ in what they leave to the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import bench_partial


def test_all_forms_are_right_and_lowered_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WIDTH": 16, "LAYERS": 2, "ROWS": 3, "ROUNDS": 1, "CALLS": 1}.items():
        monkeypatch.setattr(bench_partial, name, value)
    bench_partial.main([str(tmp_path), "--export"])
    capsys.readouterr()
    bench_partial.main([str(tmp_path)])
    _, *lines = capsys.readouterr().out.splitlines()
    dispatches = [line.split()[-2] for line in lines]
    assert [line.split()[0] for line in lines] == ["full", "partial", "undelegated", "partial"]
    assert dispatches[0] == dispatches[1] == dispatches[2]
