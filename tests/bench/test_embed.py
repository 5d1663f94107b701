from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bench import bench_embed
from bench.encoder_models import SHAPES, TorchEncoder, operations, random_weights
from executorch_webgpu.models.encoder import EncoderConfig
from executorch_webgpu.models.weights import Weight


def test_every_format_is_right_before_it_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lines.csv"
    sizes = ("--batches", "1", "3", "--lengths", "7", "--repeats", "1", "--mixed", "5")
    formats = ("--weights", "f32", "native", "--precisions", "highest")
    bench_embed.main(["--shape", "tiny", *sizes, *formats, "--csv", str(file)])
    lines = list(csv.DictReader(file.open()))
    assert [(line["weights"], line["batch"], line["length"]) for line in lines] == [
        (weights, batch, "7") for weights in ("f32", "native") for batch in ("1", "3")
    ]
    assert all(float(line["ms"]) > 0 and float(line["share"]) > 0 and not line["note"] for line in lines)
    assert "5 texts of" in capsys.readouterr().out


def test_a_wrong_vector_gets_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchEncoder, "vectors", lambda self, tokens, mask: np.zeros((len(tokens), 32), np.float32))
    file = tmp_path / "lines.csv"
    sizes = ("--batches", "1", "--lengths", "7", "--weights", "f32", "--precisions", "highest")
    bench_embed.main(["--shape", "tiny", *sizes, "--csv", str(file)])
    (line,) = csv.DictReader(file.open())
    assert (line["ms"], line["share"], line["note"]) == ("", "", "WRONG")


def test_operations_are_those_of_the_products() -> None:
    config = SHAPES["minilm"]
    weights: dict[str, Weight] = random_weights(config)
    layers = [w.dims for name, w in weights.items() if name.startswith("blk.") and len(w.dims) == 2]
    assert operations(config, 3, 10) == 3 * 10 * sum(2 * n * k for n, k in layers) + 6 * 3 * 4 * 10 * 10 * 384
    assert all(isinstance(shape, EncoderConfig) for shape in SHAPES.values())
