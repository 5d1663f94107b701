"""The benchmark of attention: lines come out with times, and only for outputs that are right."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import bench_attention
from bench.attention_call import AttentionCall, Case, Stored
from bench.bench_attention import Bench, Line, line_of, main
from executorch_webgpu.gpu.ceilings import Ceilings
from executorch_webgpu.gpu.device import Device

CEILINGS = Ceilings(read=1e9, fma=1e12, matrix=None)
DECODE, PREFILL = Case((4, 2), 16, 1, 70, "f32"), Case((4, 2), 16, 9, 9, "f32")
Array = np.ndarray


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_attention, "MAX_COPIES", 3)
    monkeypatch.setattr(bench_attention, "PASS_SECONDS", 1e-5)


def lines(device: Device, *cases: Case, route: str | None = None) -> list[Line]:
    return list(bench_attention.measure(Bench(device, CEILINGS, "", [route], torch=False), cases))


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "attention.csv"
    sizes = ["--heads", "4/2", "--head-dims", "16", "--contexts", "64", "300", "--lengths", "16"]
    dtypes = ["f32", "f16", "int8"]
    main([*sizes, "--dtypes", *dtypes, "--routes", "large_heads", "--no-torch", "--no-onnx", "--csv", str(path)])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    shapes = [("decode", "64"), ("decode", "300"), ("prefill", "16")]
    assert [(r["phase"], r["context"], r["dtype"]) for r in rows] == [(*s, dtype) for s in shapes for dtype in dtypes]
    for row in rows:
        assert row["route"] == "large_heads" and float(row["error"]) < 1e-3
        assert min(float(row[name]) for name in ("microseconds", "rate", "ceiling_rate", "share")) > 0
        assert row["note"] == ("cached" if row["phase"] == "decode" else "")
    printed = capsys.readouterr().out
    assert "decode, 4/2 heads" in printed and printed.count("large_heads") == len(rows)


@pytest.mark.parametrize("case", [DECODE, PREFILL])
@pytest.mark.parametrize(
    "tamper",
    [lambda out: 1.02 * out, lambda out: out[:, :, ::-1], lambda out: np.full_like(out, np.nan)],
    ids=["scaled", "heads swapped", "not written"],
)
def test_wrong_output_gets_no_time(
    device: Device, monkeypatch: pytest.MonkeyPatch, case: Case, tamper: Callable[[Array], Array]
) -> None:
    right = AttentionCall.run
    monkeypatch.setattr(AttentionCall, "run", lambda self: tamper(right(self)))
    (line,) = lines(device, case)
    assert line.note == "WRONG" and line.microseconds is None and line.rate is None


def test_output_is_poisoned_before_the_check(device: Device) -> None:
    with AttentionCall(device, DECODE, None, 1) as call:
        assert call.error(call.run()) < 1e-3
        call._executor.state.commands[-1].clear()  # now it dispatches nothing
        call._executor.state.replay = None
        assert np.isnan(call.error(call.run()))


def test_copies_have_the_same_caches(device: Device) -> None:
    for dtype in ("f32", "f16", "int8"):
        with AttentionCall(device, Case((4, 2), 16, 1, 70, dtype), None, 3) as call:
            call.commands()
            call.run()
            first, *others = ([*state.read(70).values()] for state in call._states)
            assert all(array[:, :69].any() for array in first)
            for other in others:
                for a, b in zip(first, other, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_a_route_that_cannot_run_is_named(device: Device) -> None:
    (line,) = lines(device, PREFILL, route="decode_cpu")
    assert line.note.startswith("cannot run: ") and line.route == "decode_cpu" and line.microseconds is None


@pytest.mark.parametrize(("seconds", "failure"), [(1e-3, ""), (None, "no such provider")])
def test_onnx_runtime_stands_beside(
    device: Device, monkeypatch: pytest.MonkeyPatch, seconds: float | None, failure: str
) -> None:
    """Once a shape, in float16, or why not."""
    monkeypatch.setattr(bench_attention, "onnx_seconds", lambda *case: (seconds, failure))
    both = [PREFILL, replace(PREFILL, dtype="f16")]
    *ours, line = bench_attention.measure(Bench(device, CEILINGS, "", [None], False, onnx=True), both)
    assert len(ours) == 2 and line.dtype == "f16" and line.implementation.startswith("onnxruntime")
    assert line.microseconds == (1000 if seconds else None) and failure in line.note


def test_counts(device: Device) -> None:
    """Bytes and operations against loops over all that is visible."""
    case = Case((6, 2), 8, 5, 12, "f16")
    columns = [c for s in range(5) for c in range(7 + s + 1)]
    assert case.operations == len(columns) * 6 * (8 + 8) * 2
    assert case.cache_bytes == 12 * 2 * 2 * np.zeros(8, np.float16).nbytes
    line = line_of(Bench(device, CEILINGS, "", [None], False), DECODE, "somebody", "", seconds=1e-3)
    assert line.rate == pytest.approx(2 * 70 * 2 * 16 * 4 / 1e-3 / 1e9) and line.share == line.rate


def test_int8_rows_keep_their_values() -> None:
    rows = np.random.default_rng(0).standard_normal((1, 7, 3, 20), np.float32)
    stored = Stored.of(rows, "int8")
    step = np.abs(rows[0, 2:5, 1]).max(-1, keepdims=True) / 127
    assert (np.abs(stored.head(slice(2, 5), 1) - rows[0, 2:5, 1]) <= 0.501 * step).all()
