"""The benchmark of the engine: a line for each number of streams, with rates and percentiles in order."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench.bench_engine import main


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "engine.csv"
    sizes = ["--shape", "tiny", "--prompt", "9", "--steps", "5", "--rows", "16", "--streams", "1", "3"]
    main([*sizes, "--csv", str(path)])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["streams"] for row in rows] == ["1", "3"]
    for row in rows:
        assert 0 < float(row["each"]) <= float(row["aggregate"])
        for name in ("first", "between"):
            assert 0 < float(row[f"{name}_50"]) <= float(row[f"{name}_95"]) <= float(row[f"{name}_99"])
    assert "first token, ms" in capsys.readouterr().out
