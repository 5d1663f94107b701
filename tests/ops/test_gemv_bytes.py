"""One row of x as whole numbers, times weights of 4 bits: in every call that may be one of a language model."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.ops.matmul import gemv_bytes
from executorch_webgpu.ops.matmul.formats import dequantize
from executorch_webgpu.ops.matmul.packed import groups_of_set
from executorch_webgpu.ops.plan import Planning

from .samples import fused_linear_sample
from .test_fused_linear import check
from .test_linear_quantized import GROUPED, Layer

FORMATS_4 = {"q4gsw": "et_vk.linear_q4gsw.default", "q4gaw": "et_webgpu.linear_q4gaw.default"}
ROUTE = "gemv_bytes"
RNG = np.random.default_rng(0)

tunings = st.builds(
    gemv_bytes.Tuning,
    workgroup_size=st.sampled_from([32, 64, 128]),
    unroll=st.sampled_from([1, 2, 4, 8]),
    workgroups=st.sampled_from([1, 3, 264]),
)


@settings(max_examples=40, deadline=None)
@given(
    weight_format=st.sampled_from(list(FORMATS_4)),
    k=st.sampled_from([8, 24, 32, 40, 64, 96, 104, 136, 256, 512, 1000, 1024, 2056, 8264, 17000]),
    widths=st.lists(st.sampled_from([1, 3, 4, 7, 13, 64, 67]), min_size=1, max_size=4),
    group=st.sampled_from([8, 24, 32, 64, 256, 4096]),
    norm=st.booleans(),
    bias=st.booleans(),
    kind=st.sampled_from(["several", "gated", "residual", "gated residual"]),
    tuning=tunings,
)
def test_any_call(
    device: Device,
    weight_format: str,
    k: int,
    widths: list[int],
    group: int,
    norm: bool,
    bias: bool,
    kind: str,
    tuning: gemv_bytes.Tuning,
) -> None:
    gated, residual = "gated" in kind, "residual" in kind
    widths = [widths[0]] * (1 + gated) if kind != "several" else widths
    sample = fused_linear_sample(weight_format, k, widths, norm, bias, gated, residual, (1, 1), group)
    check(device, sample, ROUTE, tunings={"matmul/gemv_bytes": tuning})


@settings(max_examples=20, deadline=None)
@given(
    op=st.sampled_from(list(FORMATS_4.values())),
    k=st.sampled_from([8, 24, 64, 96, 136, 1000, 2056, 17000]),
    n=st.sampled_from([1, 7, 64, 67]),
    tuning=tunings,
    seed=st.integers(0, 2**16),
)
def test_two_bytes(device: Device, op: str, k: int, n: int, tuning: gemv_bytes.Tuning, seed: int) -> None:
    """With "high", a number is off by half of what 1 stands for, at most: the largest of its eight is 32,760."""
    x = np.random.default_rng(seed).standard_normal((1, k), np.float32)
    layer = Layer.random(op, n, k)
    weights = np.abs(dequantize(GROUPED[op], layer.weights, layer.scales, layer.group_size)[:, :k])
    units = np.repeat(np.abs(x).reshape(-1, 8).max(axis=1), 8) / 32760
    options = {"matmul_precision": "high", "tunings": {"matmul/gemv_bytes": tuning}}
    with layer.program(device, 1, ROUTE, **options) as rounded, layer.program(device, 1, ROUTE) as exact:
        rounded.poison()
        got, wanted, other = rounded.run([x]), exact.reference([x]), exact.run([x])
    error = np.abs(got - wanted)
    assert (error <= 0.5 * weights @ units + 3e-6 * np.abs(wanted).max()).all()
    assert k == 8 or not np.array_equal(got, other), "nothing was rounded"


@pytest.mark.parametrize("op", FORMATS_4.values())
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e20])
def test_a_few_large_numbers_do_not_cost_the_others_their_bits(device: Device, op: str, scale: float) -> None:
    """Each eight of x have a unit of their own: with weights of 0 for the large ones, the rest is as exact as ever."""
    k, n = 512, 19
    layer = Layer.random(op, n, k)
    x = RNG.standard_normal((1, k), np.float32) * np.float32(scale)
    large = np.zeros(k, bool)
    large[64:72] = True
    x[:, large] *= 1e6
    layer.weights[:, 32:36] = 0x88  # two codes of 8, which is no weight at all where that is the zero point
    if op != FORMATS_4["q4gsw"]:
        layer.scales[64 // 32, :, :] = 0
    with layer.program(device, 1, ROUTE) as program:
        (result,) = program.run([x])
        (rest,) = program.run([np.where(large, 0, x).astype(np.float32)])
    np.testing.assert_allclose(result, rest, rtol=0, atol=2e-6 * np.abs(rest).max())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(device: Device, bad: float) -> None:
    x = RNG.standard_normal((1, 256), np.float32)
    x[0, 77] = bad
    with Layer.random(FORMATS_4["q4gsw"], 12, 256).program(device, 1, ROUTE) as program:
        (result,) = program.run([x])
        assert not np.isfinite(result).any()
        (zero,) = program.run([np.zeros_like(x)])
        np.testing.assert_array_equal(zero, 0)


def test_where_it_is_taken(device: Device) -> None:
    """On GPUs for many columns of one row, of whole units."""
    many = 20 << 10
    cases = [(1, many, 64, True), (1, many - 4, 1024, False), (2, many, 64, False), (1, many, 60, False)]
    for m, n, k, expected in [*cases, (1, 5120, 4096, True), (1, 1024, many, False)]:
        layer = Layer.random(FORMATS_4["q4gsw"], n, k)
        with layer.program(device, m) as program:
            (use,) = [plan.route for plan in program.executor.plans.plans if plan.route]
            assert (use == ROUTE) == (expected and not device.features.cpu)


@pytest.mark.parametrize("engine", ["dawn", "wgpu"])
def test_it_compiles(engine: str) -> None:
    base = {"unroll": 4, "subgroup": 32, "unit_group": 4, "bits": 4, "zero_point": 8, "scales": "float32"}
    base |= {"group_shift": True, "vec4_x": True, "guarded": False, "norm": True, "outputs": 3, "gated": False}
    base |= {"bias": False, "residual": False, "even": True, "x_bytes": 3}
    mins = {
        "zero_point": 0,
        "scales": "float16_and_min",
        "outputs": 1,
        "gated": True,
        "bias": True,
        "unit_group": 12,
    }
    for changes in (
        {},
        mins,
        {"outputs": 1, "residual": True, "norm": False, "unit_group": 0, "unroll": 8, "even": False},
        {"x_bytes": 2},
    ):
        overrides = {"wg_size": 256, "lanes": 64, "chunk": 256}
        compile_check(engine, "matmul/gemv_bytes", {**base, **changes}, overrides)


@pytest.mark.parametrize("subgroup", [4, 8, 16, 32, 64])
def test_a_team_is_of_whole_subgroups(device: Device, subgroup: int) -> None:
    """Of those that can have eight sums; Mesa's CPU driver has some of 4 on processors without AVX."""
    features = replace(device.features, subgroups=True, subgroup_min_size=subgroup, subgroup_max_size=subgroup)
    for workgroup_size, n in itertools.product([64, 256], [8, 72, 4096]):
        tunings = {"matmul/gemv_bytes": gemv_bytes.Tuning(workgroup_size)}
        planning = Planning(features, device.limits, {"fused_linear": ROUTE}, tunings=tunings)
        graph = build_graph(fused_linear_sample("q4gsw", 64, [n], rows=(1, 1)).graph())
        if subgroup == 4:
            with pytest.raises(KernelError, match="gemv_bytes"):
                plan_graph(graph, planning)
            continue
        (overrides,) = [
            dispatch.overrides for plan in plan_graph(graph, planning).plans for dispatch in plan.dispatches
        ]
        assert overrides["wg_size"] == workgroup_size
        assert overrides["lanes"] % subgroup == 0 and workgroup_size % overrides["lanes"] == 0


@given(units=st.sampled_from([4, 8, 32, 64]), unit_group=st.integers(0, 200), begin=st.integers(0, 50))
def test_groups_of_units_side_by_side(units: int, unit_group: int, begin: int) -> None:
    """Counted one by one: never too few, and less than twice the most from anywhere."""
    found = groups_of_set(units, unit_group)
    assert found & (found - 1) == 0

    def groups(first: int) -> int:
        return len({unit // unit_group if unit_group else 0 for unit in range(first, first + units)})

    assert found >= groups(begin * units)
    assert found < 2 * max(groups(first) for first in range(max(unit_group, 1)))
