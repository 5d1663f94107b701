"""Rotary embedding, cache write and attention in one operator, against the three one after the other."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.kv_cache import KV_CACHE_DTYPES, store_kv_caches
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.ops.attention.flash_decode_subgroups.plan import Tuning
from executorch_webgpu.ops.attention.reference import rope_sdpa_with_kv_cache as rope_sdpa_with_kv_cache_reference
from executorch_webgpu.ops.plan import Planning
from tests.graph_builder import GraphBuilder
from tests.ops.harness import Const, In, Mutable, OpProgram, Out, Sym, assert_close

NAME = "et_webgpu.rope_sdpa_with_kv_cache.default"
KERNEL = "attention/rotate_and_store"
ABSOLUTE = {"f32": 1e-4, "f16": 2e-3, "int8": 4e-2}  # what rounding the caches may change
rng = np.random.default_rng(6)


def normal(*dims: int) -> np.ndarray:
    return rng.standard_normal(dims, dtype=np.float32)


def angles(rows: int, columns: int) -> list[np.ndarray]:
    """cos and sin of random angles."""
    turns = rng.uniform(-3, 3, (rows, columns)).astype(np.float32)
    return [np.cos(turns), np.sin(turns)]


class Turning:
    """A program of one call over caches of zeros, on the device and as its reference."""

    def __init__(
        self,
        device: Device,
        heads: tuple[int, int],
        head_dim: int,
        halves: bool,
        *,
        rotary_dim: int | None = None,
        dtype: str = "f32",
        capacity: int = 24,
        most: int = 9,
        features: Features | None = None,
        tuning: Tuning | None = None,
        **limits: int,
    ) -> None:
        self.heads, self.head_dim = heads, head_dim
        build = GraphBuilder()
        q, k, v = (build.input((1, most, heads[i], head_dim)) for i in (0, 1, 1))
        tables = angles(capacity + 5, (rotary_dim or head_dim) if halves else head_dim // 2)
        caches = [build.constant(np.zeros((1, capacity, heads[1], head_dim), np.float32)) for _ in "kv"]
        start, position = build.live(), build.live()
        outs = [build.tensor((1, most, heads[0], head_dim)) for _ in range(2)]
        args = (q, k, v, *tables, halves, start, *caches, position, None, True, None)
        build.output(*build.call(NAME, *args, outs))

        def graph() -> Graph:
            built = build_graph(build.build())
            return built if dtype == "f32" else store_kv_caches(built, KV_CACHE_DTYPES[dtype])

        tunings = {"attention/flash_decode_subgroups": tuning} if tuning else {}
        planning = Planning(features or device.features, replace(device.limits, **cast(Any, limits)), tunings=tunings)
        self.executor = GraphExecutor(graph(), ConstantPool(device, lambda view: None), planning)
        self.reference = ReferenceExecutor(graph())
        self.absolute = ABSOLUTE[dtype]

    def __enter__(self) -> Turning:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.close()

    @property
    def kernels(self) -> list[str]:
        """Of the last step, one after the other."""
        return [dispatch.kernel for dispatch in self.executor.plans.plans[-1].dispatches]

    def step(self, tokens: int, position: int, start: int | None = None) -> None:
        """The same step on both, with rotary tables from row ``start`` on: by default those of the position."""
        given = [normal(1, tokens, self.heads[i], self.head_dim) for i in (0, 1, 1)]
        given += [np.array([position if start is None else start], np.int32), np.array([position], np.int32)]
        turned, out = self.executor.execute(given)
        wanted_turned, wanted = self.reference.execute(given)
        assert_close(turned, wanted_turned)
        assert_close(out, wanted, self.absolute)


def test_reference_turns_before_it_attends() -> None:
    """One token: a quarter turn of k is what the cache holds, and v is the answer."""
    q = np.array([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 4)
    k, v = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4), np.array([5.0, 6.0, 7.0, 8.0]).reshape(1, 1, 1, 4)
    keys, values = np.zeros((1, 2, 1, 4)), np.zeros((1, 2, 1, 4))
    cos, sin = np.zeros((3, 2)), np.ones((3, 2))
    turned, out = rope_sdpa_with_kv_cache_reference(q, k, v, cos, sin, False, 2, keys, values, 0, None, True, None)
    np.testing.assert_array_equal(turned.ravel(), [0, 1, -1, 0])
    np.testing.assert_array_equal(out.ravel(), v.ravel())
    np.testing.assert_array_equal(keys.reshape(2, 4), [[-2, 1, -4, 3], [0] * 4])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (9, 3), (7, 1)]),
    head_dim=st.sampled_from([4, 8, 12, 20, 64]),
    halves=st.booleans(),
    rotary=st.sampled_from([1.0, 0.5, 0.25]),
    dtype=st.sampled_from(list(KV_CACHE_DTYPES)),
    steps=st.lists(st.sampled_from([1, 1, 2, 3, 7, 9]), min_size=1, max_size=4),
    ahead=st.integers(0, 4),
)
def test_any_call(
    device: Device,
    heads: tuple[int, int],
    head_dim: int,
    halves: bool,
    rotary: float,
    dtype: str,
    steps: list[int],
    ahead: int,
) -> None:
    """Steps of changing sizes on one carried cache, whole and partial rotations, of odd halves too."""
    rotary_dim = max(2, int(head_dim * rotary) // 2 * 2)
    with Turning(device, heads, head_dim, halves, rotary_dim=rotary_dim, dtype=dtype) as turning:
        position = 0
        for tokens in steps:
            if position + tokens <= 24:
                turning.step(tokens, position, position + ahead)
                position += tokens


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("dtype", KV_CACHE_DTYPES)
def test_to_the_end_of_the_cache_and_back(device: Device, dtype: str, halves: bool) -> None:
    with Turning(device, (6, 2), 20, halves, dtype=dtype) as turning:
        for tokens, position in ((9, 0), (1, 9), (9, 15), (1, 23), (5, 3), (1, 8)):
            turning.step(tokens, position)


@pytest.mark.parametrize("halves", [False, True])
def test_more_int8_caches_than_an_adapter_binds_at_once(device: Device, halves: bool) -> None:
    """Eight storage buffers do not hold both int8 caches with their scales: the values are a dispatch of their own."""
    with Turning(device, (6, 2), 20, halves, dtype="int8", max_storage_buffers=8) as turning:
        assert turning.kernels[:2] == [KERNEL, "attention/cache_update"]
        for tokens, position in ((7, 0), (1, 7), (3, 8)):
            turning.step(tokens, position)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (9, 3), (8, 1)]),
    head_dim=st.sampled_from([8, 16, 24, 64]),
    halves=st.booleans(),
    whole=st.booleans(),
    dtype=st.sampled_from(list(KV_CACHE_DTYPES)),
    single=st.booleans(),
    steps=st.lists(st.sampled_from([1, 1, 1, 2, 3, 8, 9]), min_size=1, max_size=6),
)
def test_a_route_that_turns_and_stores_itself(
    device: Device,
    fixed: Features,
    heads: tuple[int, int],
    head_dim: int,
    halves: bool,
    whole: bool,
    dtype: str,
    single: bool,
    steps: list[int],
) -> None:
    """Decode in one dispatch, or two with several chunks, where a workgroup has all rows of its head.

    New rows lie in one chunk or in two, before and behind others' rows; steps with more rows go the long way.
    """
    tuning = Tuning(subgroups=2, unroll=2, min_chunk=8, single_chunk=64 if single else 8)
    rotary_dim = head_dim if whole else 8
    with Turning(
        device,
        heads,
        head_dim,
        halves,
        rotary_dim=rotary_dim,
        dtype=dtype,
        features=replace(fixed, cpu=False),
        tuning=tuning,
    ) as turning:
        position = 0
        for tokens in (*steps, 1):
            position = position if position + tokens <= 24 else 3
            turning.step(tokens, position, position + 1)
            position += tokens
            packed = tokens * heads[0] // heads[1]
            assert (turning.kernels[0] == "attention/flash_decode_subgroups") == (packed <= tuning.max_rows), packed
        assert KERNEL not in turning.kernels
        assert turning.kernels[0] == "attention/flash_decode_subgroups"


@pytest.mark.parametrize(
    ("rotary_dim", "limits"), [(12, {}), (16, {"max_storage_buffers": 10})], ids=["odd quarters", "few buffers"]
)
def test_a_route_that_cannot_turn(device: Device, fixed: Features, rotary_dim: int, limits: dict[str, Any]) -> None:
    with Turning(
        device, (4, 2), 16, True, rotary_dim=rotary_dim, features=replace(fixed, cpu=False), **limits
    ) as turning:
        for position in (0, 1, 2):
            turning.step(1, position)
        assert turning.kernels[0] == KERNEL


def test_a_mask(device: Device) -> None:
    q, k = (1, 9, 4, 8), (1, 9, 2, 8)
    cache, tables = np.zeros((1, 24, 2, 8), np.float32), map(Const, angles(24, 4))
    caches = [Mutable(cache), Mutable(cache.copy())]
    args = [In(q), In(k), In(k), *tables, False, Sym(), *caches, Sym(), In((9, 24)), False, 0.3]
    with OpProgram(device, NAME, args, [Out(q), Out(q)]) as program:
        for tokens, position in ((9, 0), (2, 9), (1, 11)):
            shapes = [(1, tokens, h, 8) for h in (4, 2, 2)]
            program.check([*(normal(*s) for s in shapes), position, position, normal(tokens, 24)])


def test_positions_that_are_not_there(device: Device) -> None:
    with Turning(device, (4, 2), 8, True) as turning:
        turning.step(5, 0)
        for tokens, position, start, message in (
            (1, 24, 0, "rows"),
            (9, 16, 0, "rows"),
            (1, -1, 0, "negative"),
            (1, 5, 29, "need a row each"),
            (1, 5, -1, "need a row each"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                turning.step(tokens, position, start)
        turning.step(2, 5)


def test_one_result_is_not_enough(device: Device) -> None:
    q, cache = (1, 3, 2, 8), Mutable(np.zeros((1, 9, 2, 8), np.float32))
    args = [In(q), In(q), In(q), *map(Const, angles(9, 4)), False, 0, cache, cache, Sym(), None, True, None]
    with pytest.raises(UnsupportedProgramError, match="two results"):
        OpProgram(device, NAME, args, [Out(q)])


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("rotation", ["pairs", "halves"])
def test_every_cache_compiles(engine: str, rotation: str) -> None:
    for cache in ("float32", "float16", "int8"):
        for made, paged in itertools.product(("qkv", "qk", "q", "k"), (False, True)):
            template = {"rotation": rotation, "cache": cache, "made": made, "paged": paged}
            compile_check(engine, KERNEL, template, {"wg_size": 32})
