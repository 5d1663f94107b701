"""``et-webgpu bench --streams``: lines for many texts, their history and plot, and what does not go with it."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path

import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu.llm.measure.stream_lines import StreamLine
from tests.cli.conftest import Cli

SIZES = ("--prompts", 9, 20, "--steps", 4, "--repeats", 2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.pte"
    write_llama(path, SHAPES["tiny"])
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_lines_and_plot(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    history, drawing = tmp_path / "history.csv", tmp_path / "streams.svg"
    sizes = ("--streams", 1, 3, *SIZES, "--max-rows", 16, "--matmul-precision", "high", "--kv-cache", "f16")
    result = cli("bench", tiny, *sizes, "--csv", history, "--plot", drawing)
    assert result.exit_code == 0, result.output
    lines = read(history)
    assert list(lines[0]) == [field.name for field in fields(StreamLine)]
    shapes = [("1", "9"), ("3", "9"), ("1", "20"), ("3", "20")]
    assert [(line["streams"], line["prompt"]) for line in lines] == shapes
    for line in lines:
        assert (line["model"], line["kv_cache"], line["steps"], line["rows"]) == ("tiny.pte", "f16", "4", "16")
        assert line["note"] == "matmul precision high"
        for name in ("rate", "each", "total", "roofline", "share", "device_mib", "load_s"):
            assert float(line[name]) > 0, name
        for name in ("first", "between"):
            assert 0 < float(line[f"{name}_50_ms"]) <= float(line[f"{name}_95_ms"]) <= float(line[f"{name}_99_ms"])
    assert "tiny.pte on" in result.stdout and "50th / 95th / 99th percentile" in result.stdout
    rows = [line.split()[:2] for line in result.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert [row for row in rows if row in [list(shape) for shape in shapes]] == [list(shape) for shape in shapes]
    assert "<svg" in drawing.read_text()


@pytest.mark.slow
def test_a_history_of_one_text_is_another_file(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    history = tmp_path / "history.csv"
    sizes = ("--prompts", 3, "--steps", 1, "--repeats", 1, "--csv", history)
    assert cli("bench", tiny, "--contexts", 0, *sizes).exit_code == 0
    before = history.read_text()
    result = cli("bench", tiny, "--streams", 2, *sizes)
    assert result.exit_code == 2 and "history.csv has other columns than date" in result.stderr
    assert history.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--streams", 2, "--prompts", 60, "--steps", 5], "5 tokens after a prompt of 60 do not fit"),
        (["--streams", 0], "must be at least 1"),
        (["--streams", "many"], "many is not a list of whole numbers"),
        (["--streams", 2, "--contexts", 9], "--contexts says nothing with --streams"),
        (["--streams", 2, "--profile"], "--profile measures one text"),
        (["--max-rows", 9], "--max-rows says nothing without --streams"),
    ],
)
def test_refused(cli: Cli, tiny: Path, arguments: list[object], message: str) -> None:
    result = cli("bench", tiny, *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in " ".join(result.stderr.split()) and "Traceback" not in result.stderr
