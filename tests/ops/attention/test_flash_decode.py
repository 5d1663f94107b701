"""The flash_decode route: a few new tokens over caches of every dtype, the context split over workgroups."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.gpu.buffers import upload
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.kv_cache import store_kv_caches
from executorch_webgpu.graph.state import GraphState
from executorch_webgpu.ops.attention import reference
from executorch_webgpu.ops.attention.call import CONTEXT_STEP, round_context
from executorch_webgpu.ops.attention.flash_decode import plan as flash_decode
from executorch_webgpu.ops.attention.flash_decode.plan import Tuning, choose_variant
from executorch_webgpu.ops.attention.merge_splits.plan import Reduction
from executorch_webgpu.ops.plan import Planning
from tests.ops.harness import In, Mutable, Out, Sym, assert_close, call_graph

DTYPES = ("float32", "float16", "int8")
GPU = replace(flash_decode.TUNING, single_chunk=64)  # several splits even in short contexts
TUNINGS = {
    "gpu": GPU,
    "floor": replace(GPU, workgroup_bytes=16 << 10, max_rows=4),
    "cpu": replace(flash_decode.CPU_TUNING, single_chunk=64, workgroups=512),
    "narrow": replace(
        GPU, workgroup_size=64, load_bytes=8, key_unroll=2, value_unroll=1, max_rows=3, reduction=Reduction(lanes=3)
    ),
    "two_loads": replace(GPU, workgroup_size=128, loads=2, max_rows=2, key_unroll=2, value_unroll=2, single_chunk=1024),
}
Array = np.ndarray


@pytest.fixture(params=TUNINGS)
def tuning(request: pytest.FixtureRequest) -> Tuning:
    return TUNINGS[request.param]


class Decode:
    """One sdpa_with_kv_cache program of up to ``most`` tokens, and float64 mirrors of its caches, as they are stored.

    Cache rows that no step wrote hold NaN on the device (int8: the largest codes, with NaN as their scale).
    """

    def __init__(
        self,
        device: Device,
        heads: tuple[int, int],  # (query heads, key/value heads)
        head_dim: int,
        capacity: int,
        dtype: str = "float32",
        route: str | None = "flash_decode",
        scale: float | None = None,
        most: int = 8,
        features: Features | None = None,
        tuning: object = GPU,
    ) -> None:
        self.device, self.heads, self.head_dim, self.capacity = device, heads, head_dim, capacity
        self.dtype, self.scale = dtype, scale
        self.rng = np.random.default_rng(heads[0] * head_dim + capacity)
        most = min(most, capacity)
        query, key = ((1, most, h, head_dim) for h in heads)
        empty = np.zeros((1, capacity, heads[1], head_dim), np.float32)
        args: list[Any] = [
            In(query),
            In(key),
            In(key),
            Mutable(empty),
            Mutable(empty),
            Sym(),
            1,
            None,
            0.0,
            True,
            scale,
        ]
        graph = build_graph(call_graph("sdpa_with_kv_cache.default", args, Out(query)))
        graph = graph if dtype == "float32" else store_kv_caches(graph, dtype)
        routes = {"sdpa_with_kv_cache": route} if route else {}
        tunings = {f"attention/{route}": tuning} if tuning else {}
        planning = Planning(features or device.features, device.limits, routes, tunings=tunings)
        self.executor = GraphExecutor(graph, ConstantPool(device, lambda view: None), planning)
        self.state = self.executor.state
        self.past = self.new_past()
        self.fill(0)

    def __enter__(self) -> Decode:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.close()

    def new_past(self) -> list[Array]:
        return [np.full((1, self.capacity, self.heads[1], self.head_dim), np.nan) for _ in "kv"]

    def fill(self, length: int, state: GraphState | None = None) -> None:
        """Put ``length`` random rows into both caches, and garbage behind them."""
        args = self.executor.graph.calls[-1].args
        for past, cache in zip(self.past, (args[3], args[4]), strict=True):
            rows = self.rng.standard_normal((1, length, self.heads[1], self.head_dim), dtype=np.float32)
            past[:] = np.nan
            past[:, :length] = reference.as_stored(rows.astype(np.float64), self.dtype)
            if self.dtype == "int8":
                scales = np.full((1, self.capacity, self.heads[1]), np.nan, np.float32)
                scales[:, :length] = reference.int8_scales(rows)[..., 0]
                codes = np.full(past.shape, 127, np.int8)
                codes[:, :length] = np.rint(rows / scales[:, :length, :, None])
                past[:, :length] = codes[:, :length] * scales[:, :length, :, None].astype(np.float64)
                self.upload(cache, codes, state)
                self.upload(cache.scales, scales, state)
            else:
                self.upload(cache, past.astype(self.dtype), state)

    def upload(self, tensor: Any, array: Array, state: GraphState | None) -> None:
        buffer = (state or self.state).buffers[self.executor.memory.storage_of[tensor.id]]
        upload(self.device, buffer, array)

    def rows(self, length: int) -> list[Array]:
        """Random q, k and v of ``length`` tokens."""
        shapes = [(1, length, self.heads[i], self.head_dim) for i in (0, 1, 1)]
        return [self.rng.standard_normal(s, dtype=np.float32) for s in shapes]

    def run(self, rows: list[Array], input_pos: int, state: GraphState | None = None) -> Array:
        (out,) = self.executor.execute([*rows, np.array([input_pos], np.int32)], state or self.state)
        return np.asarray(out)

    def step(self, length: int, input_pos: int, state: GraphState | None = None) -> Array:
        return self.check(self.rows(length), input_pos, state)

    def check(self, rows: list[Array], input_pos: int, state: GraphState | None = None) -> Array:
        got = self.run(rows, input_pos, state)
        q, *new = (x.astype(np.float64) for x in rows)
        k, v = (reference.as_stored(x, self.dtype) for x in new)
        if self.dtype == "int8":  # a number halfway between two codes may get either one
            stored = [self.stored(cache, input_pos, rows[0].shape[1], state) for cache in (3, 4)]
            for x, expected, scales in zip(stored, (k, v), map(reference.int8_scales, new), strict=True):
                steps = np.abs(x - expected) / scales
                assert steps.max() <= 1.001 and (steps > 0.001).sum() <= 2
            k, v = stored
        expected = reference.sdpa_with_kv_cache(q, k, v, self.past[0], self.past[1], input_pos, scale=self.scale)
        assert_close(got, expected)
        return got

    def stored(self, cache: int, start: int, length: int, state: GraphState | None) -> Array:
        """Rows of the int8 cache that is this argument of the call, as numbers."""
        tensor = self.executor.graph.calls[-1].args[cache]
        codes, scales = (
            (state or self.state).read_buffer(self.executor.memory.storage_of[t.id], self.capacity)
            for t in (tensor, tensor.scales)
        )
        rows = slice(start, start + length)
        return codes[:, rows].astype(np.float64) * scales[:, rows, :, None].astype(np.float64)

    @property
    def plan(self) -> Any:
        return self.executor.plans.plans[-1]


# -- geometry -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "head_dim"),
    [
        ((8, 1), 64),
        ((4, 4), 4),
        ((9, 3), 64),
        ((7, 1), 36),
        ((12, 2), 100),
        ((4, 2), 132),
        ((3, 1), 256),
        ((4, 1), 128),
        ((10, 2), 8),
        ((17, 1), 12),
    ],
)
def test_geometries(device: Device, heads: tuple[int, int], head_dim: int, dtype: str) -> None:
    """Deep and cold steps."""
    with Decode(device, heads, head_dim, 203, dtype) as decode:
        decode.fill(195)
        for length, input_pos in ((1, 194), (8, 195), (3, 130), (5, 0)):
            decode.step(length, input_pos)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 8),
    quarter=st.sampled_from([1, 2, 3, 5, 8, 9, 16, 25, 33, 64]),
    context=st.integers(1, 300),
    length=st.integers(1, 8),
    spare=st.integers(0, 5),
    dtype=st.sampled_from(DTYPES),
    name=st.sampled_from(sorted(TUNINGS)),
)
def test_any_call(
    device: Device,
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
    with Decode(
        device, (kv_heads * group, kv_heads), 4 * quarter, context + spare, dtype, tuning=TUNINGS[name]
    ) as decode:
        decode.fill(context - length)
        decode.step(length, context - length)


@pytest.mark.parametrize("dtype", DTYPES)
def test_around_every_boundary(device: Device, tuning: Tuning, dtype: str) -> None:
    """Contexts just below, at and above the ends of tiles, chunks and buckets, with rows on either side."""
    with Decode(device, (2, 1), 20, 531, dtype, most=2, tuning=tuning) as decode:
        decode.fill(531)
        ends = {16, 25, 28, 50, 64, 100, 128, 192, CONTEXT_STEP, 2 * CONTEXT_STEP, 530}
        for end in sorted(ends):
            for context in (end - 1, end, end + 1):
                length = 1 + context % 2
                decode.step(length, context - length)


def test_deep_context(device: Device) -> None:
    """Chunks of more than the shortest length, and their ends."""
    capacity = 9001
    with Decode(device, (8, 8), 4, capacity, "float16") as decode:
        decode.fill(capacity)
        chunks = set()
        for context in (4095, 4097, 8191, 8192, 8193, 8321, capacity):
            decode.step(2, context - 2)
            chunks.add(decode.plan.dispatches[1].params["chunk"])
        assert len(chunks) > 1 and max(chunks) > GPU.min_chunk


# -- what caches hold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_past_the_context_never_leak(device: Device, tuning: Tuning, dtype: str) -> None:
    with Decode(device, (2, 1), 20, 300, dtype, most=2, tuning=tuning) as decode:
        for length, input_pos in ((2, 0), (1, 2), (2, 3), (2, 5)):
            assert np.isfinite(decode.step(length, input_pos)).all()
        decode.fill(150)
        assert np.isfinite(decode.step(2, 150)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 177.0, -177.0])
def test_large_logits(device: Device, dtype: str, offset: float) -> None:
    """Logits spread over 100, and all of them far from 0, in several splits."""
    with Decode(device, (4, 2), 16, 150, dtype, scale=2.0) as decode:
        for input_pos in range(0, 144, 8):
            q, k, v = decode.rows(8)
            q[..., 0], k[..., 0] = 8.0, offset / 16.0
            decode.check([4 * q, k, v], input_pos)


def test_nan_in_the_context_shows(device: Device) -> None:
    """The control of the test above: what is in the context does reach the result."""
    with Decode(device, (2, 1), 8, 200) as decode:
        decode.fill(100)
        assert np.isnan(decode.run(decode.rows(1), 101)).all()


def test_rewind(device: Device) -> None:
    with Decode(device, (4, 2), 16, 300, "float16") as decode:
        decode.fill(290)
        for length, input_pos in ((4, 290), (3, 100), (8, 60), (1, 68), (2, 0), (1, 291)):
            decode.step(length, input_pos)


def test_two_sequences(device: Device) -> None:
    """Steps of two states in turn give what each gives alone."""
    with Decode(device, (4, 2), 16, 300, "int8") as decode:
        other, pasts = decode.executor.new_state(), [decode.past, decode.new_past()]
        for input_pos in range(0, 24, 3):
            for state, past, start in ((decode.state, pasts[0], 0), (other, pasts[1], 0)):
                decode.past = past
                decode.step(3, start + input_pos, state)


# -- plans --------------------------------------------------------------------------------------------------


def test_runs_repeat_bit_for_bit(device: Device, tuning: Tuning) -> None:
    with Decode(device, (6, 2), 20, 300, "float16", most=2, tuning=tuning) as decode:
        decode.fill(290)
        rows = decode.rows(2)
        first = decode.run(rows, 290)
        for _ in range(3):
            np.testing.assert_array_equal(decode.run(rows, 290), first)


def test_a_step_inside_a_bucket_plans_nothing(device: Device) -> None:
    with Decode(device, (2, 1), 4, 5000) as decode:
        decode.fill(5000)
        plans = []
        for input_pos in (0, 1, CONTEXT_STEP - 1, CONTEXT_STEP, 2100, 2101, 2559, 2560, 4096, 4200, 4500):
            decode.step(1, input_pos)
            plans.append(decode.plan)
        changed = [a is not b for a, b in itertools.pairwise(plans)]
        assert changed == [False, False, True, True, False, False, True, True, False, False]


def test_contexts_are_rounded_in_longer_and_longer_steps() -> None:
    rounded = sorted({round_context(n) for n in range(1, 70000)})
    assert rounded[:8] == [CONTEXT_STEP * i for i in range(1, 9)]
    assert len(rounded) < 32
    for n in (1, 256, 257, 4096, 4097, 65536, 65537):
        assert n <= round_context(n) < n + max(CONTEXT_STEP, n / 4)


def test_no_pipeline_is_made_after_load(device: Device, tuning: Tuning) -> None:
    with Decode(device, (2, 2), 4, 600, "float16", tuning=tuning) as decode:
        made = device.kernels.stats().pipelines
        for length in range(1, 9):
            for input_pos in (0, 590):
                decode.run(decode.rows(length), input_pos)
        assert device.kernels.stats().pipelines == made


def test_one_chunk_needs_one_kernel(device: Device) -> None:
    with Decode(device, (4, 2), 16, 600, tuning=Tuning()) as decode:
        decode.fill(590)
        for input_pos, kernels in ((100, 2), (CONTEXT_STEP - 1, 2), (CONTEXT_STEP, 3), (590, 3)):
            decode.step(1, input_pos)
            assert len(decode.plan.dispatches) == kernels


def test_workgroups_by_context(device: Device) -> None:
    """Enough workgroups at 4k, never many more than asked for, and a fixed number within a bucket."""
    for context, low, high in ((4096, 256, 1024), (16384, 256, 1024), (65536, 512, 1024)):
        with Decode(device, (32, 8), 4, context, "float16") as decode:
            decode.run(decode.rows(1), context - 1)
            x, y, z = decode.plan.dispatches[1].grid
            assert low <= x * y * z <= high


@pytest.mark.slow
def test_preferred_on_gpus_and_for_small_caches(device: Device) -> None:
    """A software adapter keeps the plain route where it can read the caches."""
    known = device.features
    fixed = known.subgroups and known.subgroup_min_size == known.subgroup_max_size and not known.cpu
    for dtype in DTYPES:
        with Decode(device, (4, 2), 8, 40, dtype, route=None) as decode:
            decode.step(1, 0)
            lanes = known.cpu and known.subgroup_size
            expected = "lanes" if lanes else "flash_decode_subgroups" if fixed else "flash_decode"
            assert decode.plan.route == expected


# -- variants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TUNINGS)
def test_variants_fit_and_cover_a_head(name: str) -> None:
    tuning = TUNINGS[name]
    available = min(tuning.workgroup_bytes, 48 << 10)
    for rows in (*range(1, 10), 15, 28, 64):
        for head_dim in range(4, 257, 4):
            for itemsize in (1, 2, 4):
                v = choose_variant(tuning, rows, head_dim, itemsize, tuning.workgroup_size, available)
                assert v is not None, (rows, head_dim, itemsize)
                assert v.lanes * v.elements == head_dim
                assert v.lanes * v.parts <= v.workgroup_size and v.workgroup_size >= 8 * v.rows
                assert v.workgroup_bytes <= available and v.max_chunk >= tuning.min_chunk
                assert v.score_columns % 4 == v.exchange_size % 4 == 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("name", TUNINGS)
def test_kernels_compile(engine: str, name: str) -> None:
    tuning = TUNINGS[name]
    for dtype, itemsize in (("float32", 4), ("float16", 2), ("int8", 1)):
        for rows, head_dim in ((1, 64), (4, 128), (3, 256)):
            v = choose_variant(tuning, rows, head_dim, itemsize, tuning.workgroup_size, 16 << 10)
            assert v is not None
            compile_check(engine, "attention/flash_decode", v.template(dtype), v.overrides)
    compile_check(engine, "attention/merge_splits", {"paged": False, "listed": False})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_that_is_no_number_gives_no_number(device: Device, dtype: str, value: float) -> None:
    """In the rows of its own head only; codes of int8 are multiplied as integers, which have no NaN."""
    with Decode(device, (4, 2), 16, 40, dtype, tuning=None) as decode:
        decode.step(1, 0)
        rows = decode.rows(1)
        rows[0][0, 0, 1, 3] = value
        out = np.asarray(decode.run(rows, 1)).reshape(4, 16)
        assert np.isnan(out[1]).all() and np.isfinite(out[[0, 2, 3]]).all()
