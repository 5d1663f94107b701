"""Linear layers fused with their surroundings: norm, several matrices, gate, residual; in every format of weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.matmul import gemv

from .harness import Const, In, OpProgram, Out
from .samples import LINEAR_ROUTES, WEIGHT_FORMATS, Sample, fused_linear_sample

ROUTES = (None, *LINEAR_ROUTES)
every_format = pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
every_route = pytest.mark.parametrize("route", ROUTES)


def program(device: Device, sample: Sample, route: str | None = None, **options: Any) -> OpProgram:
    routes = {"fused_linear": route} if route else {}
    return OpProgram(device, sample.op, sample.args, sample.out, routes=routes, **options)


def check(device: Device, sample: Sample, route: str | None = None, **options: Any) -> None:
    """At most rows, at fewer, and at most again."""
    with program(device, sample, route, **options) as loaded:
        for seed, live in enumerate((False, True, False)):
            loaded.check(sample.inputs(live, seed))


@settings(max_examples=60, deadline=None)
@given(
    weight_format=st.sampled_from(list(WEIGHT_FORMATS)),
    rows=st.tuples(st.sampled_from([1, 2, 5, 9, 65]), st.sampled_from([1, 3, 8])),
    k=st.sampled_from([1, 4, 8, 13, 31, 32, 37, 64, 96, 100, 160]),
    widths=st.lists(st.sampled_from([1, 3, 4, 13, 64, 67]), min_size=1, max_size=4),
    group=st.sampled_from([8, 24, 32, 256]),
    norm=st.booleans(),
    bias=st.booleans(),
    kind=st.sampled_from(["several", "gated", "residual", "gated residual"]),
    route=st.sampled_from(ROUTES),
)
def test_any_call(
    device: Device,
    weight_format: str,
    rows: tuple[int, int],
    k: int,
    widths: list[int],
    group: int,
    norm: bool,
    bias: bool,
    kind: str,
    route: str | None,
) -> None:
    gated, residual = "gated" in kind, "residual" in kind
    widths = [widths[0]] * (1 + gated) if kind != "several" else widths
    rows = (max(rows), min(rows))
    check(device, fused_linear_sample(weight_format, k, widths, norm, bias, gated, residual, rows, group), route)


@every_format
@every_route
def test_more_than_one_tile_both_ways(device: Device, weight_format: str, route: str | None) -> None:
    for widths, gated in (([131, 67, 5], False), ([131, 131], True)):
        check(device, fused_linear_sample(weight_format, 72, widths, True, True, gated, gated, (67, 9), 24), route)


@every_format
@pytest.mark.parametrize("rows", [1, 4, 8, 13])
def test_more_outputs_than_a_workgroup_has_invocations(device: Device, weight_format: str, rows: int) -> None:
    """Then an invocation finishes several: of the first one it has what is added at hand, of the others it has not."""
    tunings = {"matmul/gemv": gemv.Tuning(64, lanes=8, quads=2, invocations=1, workgroups=1)}
    for widths, gated in (([131], False), ([131, 131], True)):
        check(
            device,
            fused_linear_sample(weight_format, 72, widths, True, True, gated, True, (rows, 1), 24),
            "gemv",
            tunings=tunings,
        )


@every_format
def test_what_one_layer_of_a_llama_needs(device: Device, weight_format: str) -> None:
    """The q, k, v projections behind a norm; the gate; and a projection back to the residual stream."""
    for sample in (
        fused_linear_sample(weight_format, 288, [288, 96, 96], norm=True),
        fused_linear_sample(weight_format, 288, [768, 768], norm=True, gated=True),
        fused_linear_sample(weight_format, 768, [288], residual=True),
    ):
        check(device, sample)


@every_route
def test_it_is_what_torch_means(device: Device, route: str | None) -> None:
    """The reference is held against an implementation that is not ours."""
    rng = np.random.default_rng(1)
    x, residual = rng.standard_normal((5, 37), np.float32), rng.standard_normal((5, 13), np.float32)
    norm, gate, up, bias = (rng.standard_normal(d, np.float32) for d in ((37,), (13, 37), (13, 37), (13,)))
    args: list[Any] = [In(x.shape), Const(norm), 1e-3, "f32", [Const(gate), Const(up)], [], 0]
    args += [[None, Const(bias)], True, In(residual.shape)]
    t = {name: torch.from_numpy(a) for name, a in (("x", x), ("n", norm), ("g", gate), ("u", up), ("b", bias))}
    normed = torch.nn.functional.rms_norm(t["x"], (37,), t["n"], 1e-3)
    expected = torch.nn.functional.silu(normed @ t["g"].T) * (normed @ t["u"].T + t["b"]) + torch.from_numpy(residual)
    routes = {"fused_linear": route} if route else {}
    with OpProgram(device, "et_webgpu.fused_linear.default", args, [Out((5, 13))], routes=routes) as loaded:
        (got,) = loaded.check([x, residual])
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-4)


@every_format
@every_route
def test_a_gate_of_large_values_saturates(device: Device, weight_format: str, route: str | None) -> None:
    """silu of ±1e4 is a zero or the number itself, and no NaN."""
    sample = fused_linear_sample(weight_format, 64, [13, 13], gated=True)
    with program(device, sample, route) as loaded:
        x = 1e4 * np.sign(sample.inputs(live=False)[0])
        (expected,) = loaded.reference([x])
        (out,) = loaded.check([x], absolute=1e-6 * np.abs(expected).max())
        assert np.isfinite(out).all()


@every_format
@every_route
def test_nothing_leaks_between_rows(device: Device, weight_format: str, route: str | None) -> None:
    sample = fused_linear_sample(weight_format, 37, [13, 5], norm=True, rows=(5, 5))
    with program(device, sample, route) as loaded:
        (x,) = sample.inputs(live=False)
        assert isinstance(x, np.ndarray)
        x[0, 2, 0] = np.nan
        for out in loaded.run([x]):
            assert np.isnan(out[0, 2]).all()
            assert np.isfinite(out[0, [0, 1, 3, 4]]).all()


@pytest.mark.parametrize("rows", [(5, 2), (1, 1)])
def test_an_empty_input_gives_empty_outputs(device: Device, rows: tuple[int, int]) -> None:
    sample = fused_linear_sample("q4gsw", 32, [13, 13], norm=True, gated=True, residual=True, rows=rows)
    with program(device, sample) as loaded:
        (out,) = loaded.check([np.zeros((1, 0, 32), np.float32), np.zeros((1, 0, 13), np.float32)])
        assert out.shape == (1, 0, 13)
        loaded.check(sample.inputs(live=False))


def with_args(sample: Sample, **changes: Any) -> Sample:
    names = (
        "x",
        "norm_weight",
        "norm_eps",
        "weight_format",
        "weights",
        "scales",
        "group_size",
        "biases",
        "gated",
        "residual",
    )
    args = dict(zip(names, sample.args, strict=True)) | changes
    return replace(sample, args=list(args.values()))


def test_bad_calls_are_refused_at_load(device: Device) -> None:
    good = fused_linear_sample("q4gsw", 32, [13, 5])
    gated = fused_linear_sample("q4gsw", 32, [13, 13], gated=True)
    plain = fused_linear_sample("f32", 32, [13])
    assert isinstance(gated.out, list)
    cases = [
        ("no format of weights 'q5'", with_args(good, weight_format="q5")),
        ("as many scales", with_args(good, scales=good.args[5][:1])),
        ("as many biases", with_args(good, biases=[None])),
        ("must hold 13 elements", with_args(good, biases=[Const(np.zeros(12, np.float32)), None])),
        ("have no scales", with_args(plain, scales=good.args[5][:1])),
        (r"matrix of floats \[N, 32\]", with_args(plain, weights=[Const(np.zeros((13, 31), np.float32))])),
        ("needs a matrix", with_args(good, weights=[], scales=[], biases=[])),
        ("two matrices alike", with_args(good, gated=True)),
        ("length of the rows", with_args(good, norm_weight=Const(np.zeros(31, np.float32)))),
        ("like the one output", with_args(plain, residual=In((1, 7, 12)))),
        ("like the one output", with_args(good, residual=In((1, 7, 13)))),
        ("1 results here, not 2", replace(gated, out=[gated.out[0]] * 2)),
        ("takes float32 tensors", with_args(plain, norm_weight=Const(np.zeros(32, np.int32)))),
        ("hold 40 weights", with_args(good, x=In((1, 7, 40)))),
    ]
    for message, sample in cases:
        with pytest.raises(UnsupportedProgramError, match=message):
            program(device, sample)
