"""The flash_decode_subgroups route, on any adapter that has subgroups; the tests of flash_decode share its programs."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.attention.call import CONTEXT_STEP
from executorch_webgpu.ops.attention.flash_decode_subgroups.plan import Tuning, choose_variant

from .test_flash_decode import DTYPES, Decode

# Several splits even in short contexts; few registers, so that a software adapter has it compiled soon.
SMALL = Tuning(subgroups=2, unroll=2, registers=16, single_chunk=64)
TUNINGS = {
    "small": SMALL,
    "deep": replace(SMALL, unroll=4, subgroups=4),
    "narrow": replace(SMALL, load_bytes=8, max_rows=2),
    "single": replace(SMALL, single_chunk=1024, unroll=1),
}


def decode(device: Device, features: Features, *args: Any, tuning: str = "small", **more: Any) -> Decode:
    return Decode(device, *args, route="flash_decode_subgroups", features=features, tuning=TUNINGS[tuning], **more)


def test_refused_without_subgroups_of_one_size(device: Device) -> None:
    known = replace(device.features, subgroups=True, subgroup_min_size=8, subgroup_max_size=16)
    for features in (replace(known, subgroups=False, subgroup_max_size=8), known):
        with pytest.raises(KernelError, match="cannot run this call"):
            decode(device, features, (4, 2), 16, 40)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "head_dim", "tuning"),
    [
        ((8, 2), 64, "small"),
        ((9, 3), 80, "deep"),
        ((3, 3), 128, "narrow"),
        ((5, 1), 20, "single"),
        ((4, 2), 256, "small"),
    ],
)
def test_geometries(
    device: Device,
    fixed: Features,
    heads: tuple[int, int],
    head_dim: int,
    tuning: str,
    dtype: str,
) -> None:
    """Deep and cold steps, one token and several; the same bits again."""
    with decode(device, fixed, heads, head_dim, 203, dtype, most=2, tuning=tuning) as program:
        program.fill(195)
        for length, input_pos in ((1, 194), (2, 195), (2, 130), (1, 0)):
            program.step(length, input_pos)
        rows = program.rows(2)
        np.testing.assert_array_equal(program.run(rows, 190), program.run(rows, 190))


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 8),
    quarter=st.sampled_from([1, 2, 3, 5, 8, 9, 16, 25, 33]),
    context=st.integers(1, 300),
    length=st.integers(1, 8),
    spare=st.integers(0, 5),
    dtype=st.sampled_from(DTYPES),
    name=st.sampled_from(sorted(TUNINGS)),
)
def test_any_call(
    device: Device,
    fixed: Features,
    kv_heads: int,
    group: int,
    quarter: int,
    context: int,
    length: int,
    spare: int,
    dtype: str,
    name: str,
) -> None:
    length = min(length, context)
    heads = (kv_heads * group, kv_heads)
    with decode(device, fixed, heads, 4 * quarter, context + spare, dtype, tuning=name) as program:
        program.fill(context - length)
        program.step(length, context - length)


@pytest.mark.parametrize("dtype", DTYPES)
def test_around_every_boundary(device: Device, fixed: Features, dtype: str) -> None:
    """Contexts just below, at and above the ends of steps, chunks and buckets; garbage behind them never leaks."""
    with decode(device, fixed, (2, 1), 20, 531, dtype, most=2) as program:
        for length, input_pos in ((2, 0), (1, 2), (2, 3)):
            assert np.isfinite(program.step(length, input_pos)).all()
        program.fill(531)
        for end in (16, 32, 64, 128, CONTEXT_STEP, 2 * CONTEXT_STEP, 530):
            for context in (end - 1, end, end + 1):
                length = 1 + context % 2
                program.step(length, context - length)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 177.0, -177.0])
def test_large_logits(device: Device, fixed: Features, dtype: str, offset: float) -> None:
    """Logits of 708, and maxima that grow again and again within a split."""
    with decode(device, fixed, (4, 2), 16, 150, dtype, scale=2.0) as program:
        for input_pos in range(0, 144, 8):
            q, k, v = program.rows(8)
            q[..., 0], k[..., 0] = 8.0, offset / 16.0
            program.check([4.0 * q, k, v], input_pos)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_that_is_no_number_gives_no_number(device: Device, fixed: Features, dtype: str, value: float) -> None:
    with decode(device, fixed, (4, 2), 16, 40, dtype) as program:
        program.step(1, 0)
        rows = program.rows(1)
        rows[0][0, 0, 1, 3] = value
        out = np.asarray(program.run(rows, 1)).reshape(4, 16)
        assert np.isnan(out[1]).all() and np.isfinite(out[[0, 2, 3]]).all()


def test_no_pipeline_is_made_after_load(device: Device, fixed: Features) -> None:
    with decode(device, fixed, (2, 2), 4, 600, "float16") as program:
        made = device.kernels.stats().pipelines
        for length in range(1, 9):
            for input_pos in (0, 590):
                program.run(program.rows(length), input_pos)
        assert device.kernels.stats().pipelines == made


@pytest.mark.slow
@pytest.mark.parametrize("name", TUNINGS)
def test_variants_cover_a_head_and_fit_in_registers(name: str) -> None:
    tuning = TUNINGS[name]
    for subgroup in (8, 16, 32, 64, 128):
        for rows in (*range(1, 10), 15, 28, 64):
            for head_dim in range(4, 1025, 4):
                for itemsize in (1, 2, 4):
                    v = choose_variant(tuning, subgroup, rows, head_dim, itemsize)
                    assert v.units * v.width == head_dim and (v.width == 4 or v.width * itemsize <= tuning.load_bytes)
                    assert v.lanes <= subgroup and subgroup % v.lanes == 0 and v.lanes * v.loads >= v.units
                    assert v.rows <= tuning.max_rows
                    assert v.rows * v.width * v.loads <= tuning.registers or (v.rows, v.width) == (1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("name", TUNINGS)
def test_kernels_compile(engine: str, name: str) -> None:
    for dtype, itemsize in (("float32", 4), ("float16", 2), ("int8", 1)):
        for subgroup, rows, head_dim in ((8, 1, 64), (32, 4, 128), (32, 8, 80), (64, 3, 256)):
            variant = choose_variant(TUNINGS[name], subgroup, rows, head_dim, itemsize)
            for rotation in ("", "pairs", "halves"):
                plain = {"paged": False, "together": False, "listed": False}
                for where in (plain, *({**variant.over_pages(rows), "listed": rows == 1} for rows in (1, 64))):
                    template = {"cache": dtype, "rotation": rotation, **where, **asdict(variant)}
                    compile_check(engine, "attention/flash_decode_subgroups", template)
