"""The benchmark of vision networks: lines have times only for outputs that are right, and the models are these."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bench import bench_vision, vision_tunings
from bench.bench_vision import Bench, main, measure_all
from bench.torch_vision import right
from bench.vision_call import Case, VisionProgram, commands
from bench.vision_models import Conv, layers_of
from bench.vision_tunings import Tuned, of_layers
from executorch_webgpu.gpu.ceilings import Ceilings
from executorch_webgpu.gpu.device import Device

CEILINGS = Ceilings(read=1e9, fma=1e12, matrix=None)
LAYER = Conv(5, 7, 3, 2, bounds=(0.0, 6.0))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_vision, "REPEATS", 2)


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vision.csv"
    main(["--models", "tiny", "--batches", "2", "--size", "16", "--routes", "direct", "gemm", "--csv", str(path)])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["name"] == "tiny 16" and "direct" in rows[0]["route"] and not rows[0]["rate"]
    layers = ["3->16 3x3/2 at 16", "16->16 3x3/1 at 8 in 16 groups", "16->32 4x4/4 at 4"]
    assert [(r["name"], r["route"]) for r in rows[1:]] == [(name, r) for name in layers for r in ("direct", "gemm")]
    for row in rows:
        assert float(row["error"]) < 1e-5 and float(row["microseconds"]) > 0 and row["batch"] == "2"
        assert not row["note"] and not row["torch_eager"]
    assert "tiny, batch 2" in capsys.readouterr().out


def test_a_wrong_output_gets_no_time(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(1, 9, layer=LAYER)
    expected = right(case, "cpu")
    monkeypatch.setattr(bench_vision, "right", lambda case, where: expected * 1.01)
    bench = Bench(device, CEILINGS, "", False, "highest")
    (line,) = measure_all(bench, case, [Tuned()], "tiny", 1)
    assert line.note == "WRONG" and line.microseconds is None and line.error is not None and line.error > 1e-3


def test_what_cannot_run_says_so(device: Device) -> None:
    bench = Bench(device, CEILINGS, "", False, "highest")
    (line,) = measure_all(bench, Case(1, 9, layer=LAYER), [Tuned("depthwise")], "tiny", 1)
    assert "cannot run" in line.note and line.microseconds is None


def test_every_tuning_of_the_sweep_can_be_planned(device: Device) -> None:
    kinds = {tuned.route for layer in (LAYER, Conv(4, 4, 3, groups=4)) for tuned in of_layers(layer, "high")}
    assert kinds == {None, "direct", *vision_tunings.KERNELS}
    (*_, last) = vision_tunings.depthwise_tunings()
    case = Case(1, 9, layer=Conv(4, 4, 3, groups=4))
    with VisionProgram(device, case).executor(last.routes, last.tunings) as executor:
        assert len(commands(executor)) == 1
        assert executor.plans.plans[0].dispatches[0].template["outputs"] == last.tuning.outputs == 8


def test_the_models_are_those_that_were_published() -> None:
    """Their multiply-adds of convolutions, which papers count: 4.1 and 0.30 billion without the last layer."""
    for model, count, billions in (("resnet50", 53, 4.087), ("mobilenet_v2", 52, 0.2995), ("vit_b16", 1, 0.1156)):
        layers = layers_of(model, 224)
        assert sum(layers.values()) == count
        total = sum(n * Case(1, size, layer=layer).operations for (layer, size), n in layers.items())
        np.testing.assert_allclose(total / 2e9, billions, rtol=1e-3)
