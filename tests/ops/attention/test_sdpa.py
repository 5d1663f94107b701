"""Attention over in-graph KV caches: sdpa_with_kv_cache and update_cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import (
    Error,
    InvalidInputError,
    KernelError,
    LimitError,
    UnsupportedProgramError,
)
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.attention import reference
from executorch_webgpu.ops.attention.call import CONTEXT_STEP
from tests.ops.harness import In, Mutable, OpProgram, Out, Sym, assert_close

REPLAY = (111, 1, 1, 1, 57, 1, 1)
ROUTES = ("decode_cpu", "large_heads")
Array = np.ndarray


class Attention:
    """One sdpa_with_kv_cache program, whose caches hold NaN until a step writes them, and random steps."""

    def __init__(
        self,
        device: Device,
        heads: tuple[int, int],  # (query heads, key/value heads)
        head_dim: int,
        capacity: int,
        max_length: int,
        route: str | None = None,
        input_pos: int | None = None,
        scale: float | None = None,
        magnitude: float = 1.0,
        **options: Any,
    ) -> None:
        self.heads, self.head_dim, self.magnitude = heads, head_dim, magnitude
        self.rng = np.random.default_rng(sum(heads) * head_dim)
        query, key = (1, max_length, heads[0], head_dim), (1, max_length, heads[1], head_dim)
        empty = np.full((1, capacity, heads[1], head_dim), np.nan, np.float32)
        position = Sym() if input_pos is None else input_pos
        self.args = [
            In(query),
            In(key),
            In(key),
            Mutable(empty),
            Mutable(empty),
            position,
            1,
            None,
            0.0,
            True,
            scale,
        ]
        routes = {"sdpa_with_kv_cache": route} if route else {}
        self.program = OpProgram(device, "sdpa_with_kv_cache.default", self.args, Out(query), routes=routes, **options)

    def __enter__(self) -> Attention:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.executor.close()

    def rows(self, length: int) -> list[Array]:
        """Random q, k and v of ``length`` tokens."""
        shapes = [(1, length, self.heads[i], self.head_dim) for i in (0, 1, 1)]
        q, k, v = (self.rng.standard_normal(s, dtype=np.float32) for s in shapes)
        return [q * np.float32(self.magnitude), k, v]

    def step(self, length: int, input_pos: int) -> Array:
        out: Array = self.program.check([*self.rows(length), input_pos])
        return out

    def replay(self, lengths: tuple[int, ...], input_pos: int = 0) -> None:
        for length in lengths:
            self.step(length, input_pos)
            input_pos += length

    @property
    def route(self) -> str | None:
        return self.program.executor.plans.plans[-1].route

    @property
    def plan(self) -> Any:
        return self.program.executor.plans.plans[-1]

    def caches(self) -> tuple[Array, Array]:
        return self.program.mutable(0), self.program.mutable(1)


# -- meaning ------------------------------------------------------------------------------------------------


def test_reference_by_hand() -> None:
    """Two tokens, one head of size 1 per group member, worked out on paper."""
    q = np.array([0.0, 0.0, np.log(3.0), 0.0]).reshape(1, 2, 2, 1)  # the second token's first head prefers key 1
    k, v = np.array([0.0, 1.0]).reshape(1, 2, 1, 1), np.array([10.0, 30.0]).reshape(1, 2, 1, 1)
    k_cache, v_cache = np.zeros((1, 3, 1, 1)), np.zeros((1, 3, 1, 1))
    v_cache[0, 0] = 2.0  # row 0 was written by an earlier step
    out = reference.sdpa_with_kv_cache(q, k, v, k_cache, v_cache, 1)
    np.testing.assert_allclose(out.ravel(), [6.0, 6.0, (2 + 10 + 3 * 30) / 5, 14.0])
    np.testing.assert_array_equal(k_cache.ravel(), [0, 0, 1])
    np.testing.assert_array_equal(v_cache.ravel(), [2, 10, 30])


@pytest.mark.parametrize("route", [None, "large_heads"])
@pytest.mark.parametrize(
    ("heads", "head_dim"),
    [
        ((4, 4), 4),
        ((9, 3), 64),
        ((8, 2), 20),
        ((5, 1), 80),
        ((4, 2), 12),
        ((2, 2), 128),
        ((3, 1), 52),
        ((16, 1), 8),
    ],
)
def test_replay(device: Device, heads: tuple[int, int], head_dim: int, route: str | None) -> None:
    """Prefill, decode, a second chunk and decode on one carried cache that ends exactly full."""
    with Attention(device, heads, head_dim, sum(REPLAY), 111, route) as attention:
        attention.replay(REPLAY)
        for got, expected in zip(attention.caches(), attention.program._reference_state, strict=True):
            np.testing.assert_array_equal(got, expected.astype(np.float32))


@settings(max_examples=12, deadline=None)
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 5),
    quarter=st.sampled_from([1, 3, 4, 5, 7, 16]),
    lengths=st.lists(st.integers(1, 13), min_size=2, max_size=5),
    spare=st.integers(0, 3),
)
def test_any_geometry(device: Device, kv_heads: int, group: int, quarter: int, lengths: list[int], spare: int) -> None:
    capacity = sum(lengths) + spare
    heads = (kv_heads * group, kv_heads)
    with Attention(device, heads, 4 * quarter, capacity, min(13, capacity)) as attention:
        attention.replay(tuple(lengths))


def test_live_length_shrinks_grows_and_repeats(device: Device) -> None:
    with Attention(device, (6, 2), 16, 64, 29) as attention:
        for length, input_pos in (
            (29, 0),
            (3, 0),
            (1, 3),
            (1, 3),
            (17, 4),
            (17, 4),
            (29, 21),
            (1, 50),
            (29, 0),
        ):
            assert attention.step(length, input_pos).shape == (1, length, 6, 16)


def test_input_pos_moves_the_result(device: Device) -> None:
    """The negative control: the same step with input_pos pinned at 0 must differ."""
    with Attention(device, (4, 2), 16, 40, 31) as attention:
        attention.step(31, 0)
        rows = attention.rows(1)
        moved = attention.program.check([*rows, 31])
        pinned = attention.program.run([*rows, 0])
        assert np.abs(moved - pinned).max() > 0.1


def test_the_cache_carries_over(device: Device) -> None:
    """The other control: a fresh program at the same position sees none of the earlier rows."""
    with Attention(device, (4, 2), 16, 40, 31) as carried, Attention(device, (4, 2), 16, 40, 31) as fresh:
        carried.step(31, 0)
        rows = carried.rows(1)
        assert np.isfinite(carried.program.check([*rows, 31])).all()
        assert np.isnan(fresh.program.run([*rows, 31])).all()


def test_constant_input_pos(device: Device) -> None:
    with Attention(device, (4, 2), 16, 16, 5, input_pos=0) as attention:
        for length in (5, 2):
            attention.program.check(attention.rows(length))


@pytest.mark.parametrize("route", ROUTES)
def test_rows_past_the_context_never_leak(device: Device, route: str) -> None:
    """All cache rows are NaN at first, so a read of one row too many shows."""
    with Attention(device, (6, 2), 12, 300, 8, route) as attention:
        for length, input_pos in ((8, 0), (1, 8), (7, 9), (3, 16), (2, 19)):
            assert np.isfinite(attention.step(length, input_pos)).all()
        for cache in attention.caches():
            assert np.isfinite(cache[:, :21]).all() and np.isnan(cache[:, 21:]).all()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("offset", [0.0, 177.0, -177.0])
def test_large_logits(device: Device, route: str, offset: float) -> None:
    """Logits spread over 100, and all of them far from 0: exp must not overflow, nor every term underflow."""
    with Attention(device, (4, 2), 16, 48, 40, magnitude=4.0, scale=2.0) as attention:
        for length, input_pos in ((40, 0), (3, 40), (1, 43)):
            q, k, v = attention.rows(length)
            q[..., 0], k[..., 0] = 8.0, offset / 16.0
            attention.program.check([q, k, v, input_pos])


def test_explicit_scale(device: Device) -> None:
    with Attention(device, (2, 2), 8, 20, 9, scale=0.3) as attention:
        attention.replay((9, 1))


# -- routes -------------------------------------------------------------------------------------------------


def test_route_by_length(device: Device) -> None:
    few, many = "flash_decode", "flash"
    if device.features.cpu:
        few = many = "lanes" if device.features.subgroup_size else "decode_cpu"
    elif device.features.subgroup_size:
        few = "flash_decode_subgroups"
    with Attention(device, (4, 2), 8, 64, 16) as attention:
        for length, route in ((16, many), (8, few), (9, many), (1, few)):
            attention.step(length, 0)
            assert attention.route == route


def test_forced_routes_agree(device: Device) -> None:
    """Every decode length, through both routes, on the same rows."""
    results: dict[str, list[Array]] = {}
    for route in ROUTES:
        with Attention(device, (6, 2), 20, 70, 8, route) as attention:
            results[route] = [attention.step(n, sum(range(1, n))) for n in range(1, 9)]
    for decode, large_heads in zip(*results.values(), strict=True):
        assert_close(decode, large_heads.astype(np.float64))


def test_unknown_or_unfit_route(device: Device) -> None:
    with pytest.raises(KernelError, match=r"no route 'fast'.*decode_cpu.*flash, large_heads"):
        Attention(device, (2, 1), 8, 16, 4, "fast")
    with pytest.raises(KernelError, match="'decode_cpu' of sdpa_with_kv_cache cannot run"):
        Attention(device, (2, 1), 8, 16, 9, "decode_cpu")


def test_one_call_equals_chunks_equals_single_tokens(device: Device) -> None:
    total = 37
    rows: list[Array] = []
    results = []
    for lengths in ((total,), (16, 16, 5), (1,) * total):
        with Attention(device, (4, 2), 16, total, total) as attention:
            rows = rows or attention.rows(total)
            steps, start = [], 0
            for length in lengths:
                part = [x[:, start : start + length] for x in rows]
                steps.append(attention.program.check([*part, start]))
                start += length
            results.append(np.concatenate(steps, axis=1))
    for other in results[1:]:
        assert_close(other, results[0].astype(np.float64))


@pytest.mark.parametrize("tokens_per_block", [1, 3, 7])
def test_blocks_under_a_small_scratch_bound(device: Device, tokens_per_block: int) -> None:
    capacity, heads = 48, (6, 2)
    bound = 4 * heads[0] * capacity * tokens_per_block
    with Attention(device, heads, 16, capacity, 29, "large_heads", scratch_bytes=bound) as attention:
        for length, input_pos in ((29, 0), (5, 29), (1, 34), (13, 35)):
            attention.step(length, input_pos)
            assert all(s.nbytes <= bound for d in attention.plan.dispatches for s in _scratch(d))
        attention.step(29, 0)
        blocks = sum(d.kernel == "attention/large_heads/softmax" for d in attention.plan.dispatches)
        assert blocks == -(-29 // (bound // (4 * heads[0] * 48)))


def _scratch(dispatch: Any) -> list[Any]:
    return [b for b in dispatch.bindings.values() if hasattr(b, "index")]


def test_scratch_bound_below_one_token(device: Device) -> None:
    """Scores of one row do not fit; the routes that keep none still run, and heads too large for them are refused."""
    with pytest.raises(KernelError, match="'large_heads' of sdpa_with_kv_cache cannot run"):
        Attention(device, (4, 2), 16, 90, 8, "large_heads", scratch_bytes=1000)
    with Attention(device, (4, 2), 16, 90, 9, scratch_bytes=1000) as attention:
        attention.step(9, 0)
        assert attention.route in ("flash", "lanes")
    with pytest.raises(LimitError, match=r"1536 bytes of scratch per token.*bounded at 1000"):
        Attention(device, (4, 2), 516, 90, 9, scratch_bytes=1000)


def test_columns_behind_a_block_are_not_computed(device: Device) -> None:
    """Blocks of a first prefill see longer and longer contexts, and their grids say so."""
    capacity, heads = 400, (2, 1)
    with Attention(device, heads, 8, capacity, 400, "large_heads", scratch_bytes=4 * 2 * 400 * 100) as attention:
        attention.step(400, 0)
        widths = [d.grid[0] for d in attention.plan.dispatches if d.kernel == "attention/scores"]
        assert widths == sorted(set(widths)) and len(widths) > 2


def test_plan_changes_once_per_context_step(device: Device) -> None:
    """A decode step whose input_pos moved replays the recorded plan; the kernels read input_pos."""
    with Attention(device, (2, 1), 4, 2 * CONTEXT_STEP, 1) as attention:
        attention.program.run([*attention.rows(1), 0])
        first = attention.plan
        for input_pos in (1, 2, 100, CONTEXT_STEP - 1):
            attention.program.run([*attention.rows(1), input_pos])
            assert attention.plan is first
        attention.program.run([*attention.rows(1), CONTEXT_STEP])
        assert attention.plan is not first


def test_no_pipeline_is_made_after_load(device: Device) -> None:
    with Attention(device, (10, 2), 24, 64, 40) as attention:
        made = device.kernels.stats().pipelines
        attention.replay((40, 1, 8, 9, 2, 1))
        assert device.kernels.stats().pipelines == made


@pytest.mark.parametrize("context", [4095, 4096])
def test_deep_decode(device: Device, context: int) -> None:
    """The cache is filled by constants here; only the last token is a step."""
    rng = np.random.default_rng(4)
    q, k, v = (rng.standard_normal((1, 1, h, 16), dtype=np.float32) for h in (4, 2, 2))
    caches = [Mutable(rng.standard_normal((1, 4096, 2, 16), dtype=np.float32)) for _ in range(2)]
    args = [In(q.shape), In(k.shape), In(v.shape), *caches, Sym(), 1, None, 0.0, True, None]
    with OpProgram(device, "llama.sdpa_with_kv_cache.default", args, Out(q.shape)) as program:
        program.check([q, k, v, context - 1])


@pytest.mark.parametrize("route", ROUTES)
def test_runs_repeat_bit_for_bit(device: Device, route: str) -> None:
    with Attention(device, (9, 3), 64, 300, 8, route) as attention:
        for input_pos in range(0, 296, 8):
            attention.program.run([*attention.rows(8), input_pos])
        rows = attention.rows(4)
        first = attention.program.run([*rows, 296])
        for _ in range(3):
            np.testing.assert_array_equal(attention.program.run([*rows, 296]), first)


# -- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "input_pos", "message"),
    [
        (1, -1, "input_pos is -1"),
        (1, 16, r"input_pos 16 \+ 1 new tokens = 17, but the cache has 16 rows"),
        (5, 12, r"input_pos 12 \+ 5 new tokens = 17"),
        (1, 2**31 - 1, "= 2147483648"),
    ],
)
def test_step_outside_the_cache(device: Device, length: int, input_pos: int, message: str) -> None:
    with Attention(device, (4, 2), 8, 16, 5) as attention:
        attention.replay((5, 5, 5))
        before = attention.caches()
        with pytest.raises(InvalidInputError, match=message):
            attention.program.run([*attention.rows(length), input_pos])
        for was, now in zip(before, attention.caches(), strict=True):
            np.testing.assert_array_equal(was, now)
        attention.step(1, 15)  # exactly full, after the rejected step


def test_decode_past_the_end_is_noticed(device: Device) -> None:
    """Only input_pos changes from step to step here."""
    with Attention(device, (2, 1), 4, 6, 1) as attention:
        attention.replay((1,) * 6)
        for _ in range(2):
            with pytest.raises(InvalidInputError, match="the cache has 6 rows"):
                attention.program.run([*attention.rows(1), 6])


def test_live_lengths_must_agree(device: Device) -> None:
    with Attention(device, (4, 2), 8, 16, 5) as attention:
        (q, _, _), (_, k, v) = attention.rows(3), attention.rows(2)
        with pytest.raises(InvalidInputError, match=r"k is \[1, 2, 2, 8\], but must be \[1, 3, 2, 8\]"):
            attention.program.run([q, k, v, 0])


QUERY, KEY, CACHE = (1, 4, 6, 8), (1, 4, 2, 8), (1, 16, 2, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: (1, 4, 5, 8)}, "5 query heads are not a multiple of 2"),
        (
            {0: (1, 4, 6, 6), 1: (1, 4, 2, 6), 2: (1, 4, 2, 6), 3: (1, 16, 2, 6), 4: (1, 16, 2, 6)},
            "head size 6",
        ),
        ({0: (2, 4, 6, 8)}, "batch 1"),
        ({3: (2, 16, 2, 8), 4: (2, 16, 2, 8)}, "batch 1"),
        ({1: (1, 3, 2, 8)}, r"k is \[1, 3, 2, 8\]"),
        ({2: (1, 4, 3, 8)}, r"v is \[1, 4, 3, 8\]"),
        ({4: (1, 17, 2, 8)}, "caches"),
        ({3: (1, 16, 2, 12), 4: (1, 16, 2, 12)}, "caches"),
        ({3: (1, 3, 2, 8), 4: (1, 3, 2, 8)}, "4 new rows cannot fit a cache of 3"),
        ({0: (4, 6, 8)}, r"\[1, S, heads, D\]"),
        ({8: 0.5}, "dropout"),
    ],
)
def test_refused_at_load(device: Device, changes: dict[int, Any], message: str) -> None:
    args: list[Any] = [QUERY, KEY, KEY, CACHE, CACHE, Sym(), 1, None, 0.0, True, None]
    for index, value in changes.items():
        args[index] = value
    out = Out(args[0])
    args[:3] = [In(dims) for dims in args[:3]]
    args[3:5] = [Mutable(np.zeros(dims, np.float32)) for dims in args[3:5]]
    with pytest.raises(UnsupportedProgramError, match=message):
        OpProgram(device, "sdpa_with_kv_cache.default", args, out)


# -- update_cache -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "head_dim"), [(4, 4), (2, 8), (8, 128), (3, 5), (1, 1)])
def test_update_cache_replay(device: Device, heads: int, head_dim: int) -> None:
    rng = np.random.default_rng(heads)
    cache = rng.standard_normal((1, sum(REPLAY), heads, head_dim), dtype=np.float32)
    args = [In((1, 111, heads, head_dim)), Mutable(cache), Sym()]
    with OpProgram(device, "llama.update_cache.default", args, Out((1,))) as program:
        expected, start = cache.copy(), 0
        for length in REPLAY:
            value = rng.standard_normal((1, length, heads, head_dim), dtype=np.float32)
            program.check([value, start])
            expected[:, start : start + length] = value
            np.testing.assert_array_equal(program.mutable(), expected)
            start += length


def test_update_cache_bounds(device: Device) -> None:
    cache = np.ones((1, 8, 2, 4), np.float32)
    with OpProgram(device, "update_cache.default", [In((1, 2, 2, 4)), Mutable(cache), Sym()], Out((1,))) as program:
        value = np.zeros((1, 2, 2, 4), np.float32)
        for start in (-1, 7, 8, 2**31 - 1):
            with pytest.raises(InvalidInputError, match="update_cache: input_pos"):
                program.run([value, start])
        np.testing.assert_array_equal(program.mutable(), cache)
        program.check([value, 6])


@pytest.mark.parametrize(
    ("value", "cache", "start"),
    [
        ((2, 2, 2, 4), (3, 8, 2, 4), 0),  # batch
        ((1, 2, 2, 4), (1, 8, 2, 8), 0),  # head size
        ((1, 2, 3, 4), (1, 8, 2, 4), 0),  # heads
        ((2, 2, 4), (8, 2, 4), 0),  # rank
        ((1, 9, 2, 4), (1, 8, 2, 4), 0),  # longer than the cache
        ((1, 2, 2, 4), (1, 8, 2, 4), 7),  # a constant position past the end
    ],
)
def test_update_cache_refused_at_load(
    device: Device, value: tuple[int, ...], cache: tuple[int, ...], start: int
) -> None:
    with pytest.raises(Error, match="update_cache"):
        args = [In(value), Mutable(np.zeros(cache, np.float32)), start]
        OpProgram(device, "update_cache.default", args, Out((1,)))


# -- kernels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_kernels_compile(engine: str) -> None:
    for rows in (1, 3, 8):
        compile_check(engine, "attention/scores", {"rows": rows, "cache": "float32"})
    compile_check(engine, "attention/large_heads/softmax", {"rows": 8})
    for vectors in (1, 2):
        compile_check(engine, "attention/large_heads/values", {"rows": 8, "vectors": vectors, "cache": "float32"})
        compile_check(engine, "attention/decode_cpu", {"rows": 4, "vectors": vectors})
    for count, width in ((1, 1), (2, 4)):
        compile_check(
            engine, "attention/cache_update", {"count": count, "width": width, "cache": "float32", "paged": False}
        )
