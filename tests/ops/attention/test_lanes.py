"""The lanes route: any number of new tokens on adapters that are CPUs, over caches of every dtype."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.gpu.capabilities import lanes_of_name
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.attention.lanes import plan as lanes

from .test_flash_decode import DTYPES, Decode

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def program(device: Device, heads: tuple[int, int], head_dim: int, capacity: int, dtype: str, most: int = 8) -> Decode:
    """By this route, whatever the device prefers."""
    features = replace(device.features, cpu=True)
    assert features.subgroup_size, "the size of its subgroups must be known"
    return Decode(device, heads, head_dim, capacity, dtype, "lanes", most=most, features=features, tuning=None)


@every_dtype
@pytest.mark.parametrize(
    ("heads", "head_dim"),
    [((9, 3), 64), ((4, 4), 4), ((7, 1), 36), ((12, 2), 100), ((2, 1), 132), ((3, 1), 256), ((17, 1), 12)],
)
def test_geometries(device: Device, heads: tuple[int, int], head_dim: int, dtype: str) -> None:
    """Deep and cold steps, of a few tokens and of many."""
    with program(device, heads, head_dim, 303, dtype, most=41) as decode:
        decode.fill(295)
        for length, input_pos in ((1, 294), (8, 295), (3, 130), (41, 257), (41, 0), (1, 0)):
            decode.step(length, input_pos)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 9),
    quarter=st.sampled_from([1, 2, 3, 5, 8, 9, 16, 25, 33, 64]),
    context=st.integers(1, 600),
    length=st.integers(1, 40),
    spare=st.integers(0, 5),
    dtype=st.sampled_from(DTYPES),
)
def test_any_call(
    device: Device, kv_heads: int, group: int, quarter: int, context: int, length: int, spare: int, dtype: str
) -> None:
    length = min(length, context)
    with program(device, (kv_heads * group, kv_heads), 4 * quarter, context + spare, dtype, most=length) as decode:
        decode.fill(context - length)
        decode.step(length, context - length)


@every_dtype
def test_around_every_boundary(device: Device, dtype: str) -> None:
    """Contexts just below, at and above the ends of what lanes read at a time, of splits, and of the cache."""
    with program(device, (2, 1), 20, 531, dtype, most=2) as decode:
        decode.fill(531)
        for end in (8, 16, 64, lanes._CHUNK, 2 * lanes._CHUNK, 530):
            for context in (end - 1, end, end + 1):
                length = 1 + context % 2
                decode.step(length, context - length)


def test_longer_splits_of_deep_contexts(device: Device) -> None:
    capacity = lanes._CHUNK * lanes._MAX_SPLITS + 77
    with program(device, (2, 2), 4, capacity, "float16") as decode:
        decode.fill(capacity)
        chunks = set()
        for context in (4097, capacity - 80, capacity):
            decode.step(2, context - 2)
            chunks.add(decode.plan.dispatches[1].params["chunk"])
        assert chunks == {lanes._CHUNK, 2 * lanes._CHUNK}


@every_dtype
def test_rows_past_the_context_never_leak(device: Device, dtype: str) -> None:
    with program(device, (2, 1), 20, 300, dtype, most=12) as decode:
        for length, input_pos in ((2, 0), (1, 2), (12, 3), (2, 15)):
            assert np.isfinite(decode.step(length, input_pos)).all()


@every_dtype
@pytest.mark.parametrize("offset", [0.0, 177.0, -177.0])
def test_large_logits(device: Device, dtype: str, offset: float) -> None:
    """Logits spread over 100, and all of them far from 0."""
    with Decode(device, (4, 2), 16, 150, dtype, "lanes", 2.0, features=replace(device.features, cpu=True)) as decode:
        for input_pos in range(0, 144, 8):
            q, k, v = decode.rows(8)
            q[..., 0], k[..., 0] = 8.0, offset / 16.0
            decode.check([4 * q, k, v], input_pos)


def test_runs_repeat_bit_for_bit(device: Device) -> None:
    with program(device, (6, 2), 20, 600, "float16", most=19) as decode:
        decode.fill(590)
        for rows in (decode.rows(2), decode.rows(19)):
            first = decode.run(rows, 570)
            for _ in range(3):
                np.testing.assert_array_equal(decode.run(rows, 570), first)


def test_no_pipeline_is_made_after_load(device: Device) -> None:
    with program(device, (2, 2), 4, 600, "float32", most=20) as decode:
        made = device.kernels.stats().pipelines
        for length in (1, 2, 7, 20):
            for input_pos in (0, 580):
                decode.run(decode.rows(length), input_pos)
        assert device.kernels.stats().pipelines == made


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_kernels_compile(engine: str) -> None:
    for cache in DTYPES:
        for subgroup, rows, vectors in ((8, 3, 16), (4, 8, 9), (32, 2, 64)):
            template: dict[str, Any] = {"lanes": subgroup, "rows": rows, "vectors": vectors, "cache": cache}
            compile_check(engine, "attention/lanes", template, {})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", 8),
        ("llvmpipe (LLVM 12.0.0, 128 bits)", 4),
        ("llvmpipe", 0),
        ("SwiftShader Device (LLVM 10.0.0)", 0),
        ("NVIDIA H100, 512 bits", 0),
    ],
)
def test_lanes_that_a_name_tells(name: str, known: int) -> None:
    assert lanes_of_name(name) == known
