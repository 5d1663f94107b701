"""Attention as a function: against float64, on host and device arrays, over caches of every dtype."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu import ClosedError, InvalidInputError, KernelError, Runtime
from executorch_webgpu.attention import DeviceArray, KVCache, sdpa_with_kv_cache, to_device
from executorch_webgpu.ops.attention import reference
from tests.ops.harness import assert_close

DTYPES = {"f32": "float32", "f16": "float16", "int8": "int8"}
Array = np.ndarray
rng = np.random.default_rng(7)


def rows(length: int, heads: int, kv_heads: int, head_dim: int) -> tuple[Array, Array, Array]:
    """q, k and v of ``length`` tokens."""
    q, k, v = (rng.standard_normal((1, length, h, head_dim)).astype(np.float32) for h in (heads, kv_heads, kv_heads))
    return q, k, v


class Expected:
    """The float64 twin of a cache, whose rows are rounded like its."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        dims = (1, cache.capacity, cache.kv_heads, cache.head_dim)
        self.k, self.v = np.full(dims, np.nan), np.full(dims, np.nan)

    def stored(self, x: Array) -> Array:
        return reference.as_stored(x.astype(np.float64), DTYPES[self.cache.dtype])

    def append(self, k: Array, v: Array) -> None:
        start = self.cache.length
        self.k[:, start : start + k.shape[1]], self.v[:, start : start + k.shape[1]] = self.stored(k), self.stored(v)

    def __call__(self, q: Array, k: Array, v: Array, position: int, scale: float | None = None) -> Array:
        keys, values = self.stored(k), self.stored(v)
        return reference.sdpa_with_kv_cache(q.astype(float), keys, values, self.k, self.v, position, scale=scale)


def check(cache: KVCache, expected: Expected, length: int, heads: int, position: int | None = None) -> None:
    start = cache.length if position is None else position
    given = rows(length, heads, cache.kv_heads, cache.head_dim)
    assert_close(sdpa_with_kv_cache(*given, cache, position), expected(*given, start))
    assert cache.length == start + length


# -- meaning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_prefill_decode_and_rewind(dtype: str) -> None:
    with KVCache(61, 2, 20, dtype) as cache:
        expected = Expected(cache)
        for length in (23, 1, 1, 9, 2):
            check(cache, expected, length, heads=6)
        cache.rewind(24)
        for length in (1, 11, 1):
            check(cache, expected, length, heads=6)
        check(cache, expected, 3, heads=6, position=5)  # over earlier rows, which ends the cache there
        assert cache.length == 8
        check(cache, expected, 53, heads=6)  # exactly full


@settings(max_examples=8, deadline=None)
@given(
    dtype=st.sampled_from(sorted(DTYPES)),
    kv_heads=st.integers(1, 3),
    groups=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    quarter=st.sampled_from([1, 3, 8]),
    lengths=st.lists(st.integers(1, 19), min_size=1, max_size=4),
)
def test_any_geometry(dtype: str, kv_heads: int, groups: list[int], quarter: int, lengths: list[int]) -> None:
    """The number of query heads may change from call to call."""
    with KVCache(sum(lengths) + 1, kv_heads, 4 * quarter, dtype) as cache:
        expected = Expected(cache)
        for i, length in enumerate(lengths):
            check(cache, expected, length, kv_heads * groups[i % len(groups)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_appended_rows_are_attended_to(dtype: str) -> None:
    with KVCache(40, 2, 8, dtype) as cache:
        expected = Expected(cache)
        for length in (17, 1, 3):
            _, k, v = rows(length, 2, 2, 8)
            expected.append(k, v)
            cache.append(k, v)
        assert cache.length == 21 and cache.route is None
        check(cache, expected, 2, heads=4)


def test_two_caches_interleaved_give_what_each_gives_alone() -> None:
    texts = [[rows(n, 4, 2, 12) for n in (9, 1, 1, 5)] for _ in range(2)]

    def alone(text: list[tuple[Array, Array, Array]]) -> list[Array]:
        with KVCache(16, 2, 12, "int8") as cache:
            return [sdpa_with_kv_cache(*step, cache) for step in text]

    wanted = [alone(text) for text in texts]
    with KVCache(16, 2, 12, "int8") as one, KVCache(16, 2, 12, "int8") as two:
        for i in range(4):
            for cache, text, result in zip((one, two), texts, wanted, strict=True):
                np.testing.assert_array_equal(sdpa_with_kv_cache(*text[i], cache), result[i])


def test_scale() -> None:
    with KVCache(9, 1, 4) as cache:
        expected = Expected(cache)
        for position, scale in enumerate((0.3, None, 1 / math.sqrt(4), 2)):
            given = rows(1, 2, 1, 4)
            assert_close(sdpa_with_kv_cache(*given, cache, scale=scale), expected(*given, position, scale))


# -- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_device_arrays_stay_on_the_device(dtype: str) -> None:
    steps = [rows(n, 4, 2, 8) for n in (13, 1, 40, 1)]
    with KVCache(64, 2, 8, dtype) as host, KVCache(64, 2, 8, dtype) as device:
        for i, step in enumerate(steps):
            given: Any = [to_device(x) for x in step]
            if i == 1:
                given[1:] = step[1:]  # some here, some there
            out = sdpa_with_kv_cache(given[0], given[1], given[2], device)
            assert isinstance(out, DeviceArray) and out.shape == step[0].shape
            np.testing.assert_array_equal(out.numpy(), sdpa_with_kv_cache(*step, host))
        k, v = (to_device(x) for x in steps[1][1:])
        device.append(k, v)
        host.append(*steps[1][1:])
        again = sdpa_with_kv_cache(out, k, v, device)  # a result is an input
        np.testing.assert_array_equal(again.numpy(), sdpa_with_kv_cache(out.numpy(), *steps[1][1:], host))


def test_results_are_kept() -> None:
    """An older result does not change with newer calls, nor with the end of the cache."""
    with KVCache(64, 1, 4) as cache:
        q, k, v = (to_device(x) for x in rows(3, 1, 1, 4))
        first = sdpa_with_kv_cache(q, k, v, cache)
        before = first.numpy()
        q, k, v = (to_device(x) for x in rows(30, 1, 1, 4))
        sdpa_with_kv_cache(q, k, v, cache)
    np.testing.assert_array_equal(first.numpy(), before)
    first.close()
    first.close()
    with pytest.raises(ClosedError, match="device array is closed"):
        first.numpy()


def test_torch_tensors() -> None:
    q, k, v = (torch.from_numpy(x) for x in rows(5, 4, 2, 8))
    with KVCache(8, 2, 8) as cache:
        out = sdpa_with_kv_cache(q, k, v, cache)
    assert isinstance(out, torch.Tensor)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    assert_close(out.numpy(), wanted.transpose(1, 2).double().numpy())


# -- routes and memory ------------------------------------------------------------------------------------------------


def test_the_route_is_known_and_can_be_forced() -> None:
    with KVCache(40, 2, 8, profile=True) as cache:
        assert (cache.route, cache.profile()) == (None, [])
        sdpa_with_kv_cache(*rows(17, 4, 2, 8), cache, route="large_heads")
        assert cache.route == "large_heads"
        sdpa_with_kv_cache(*rows(1, 4, 2, 8), cache)
        chosen = cache.route
        cache.append(*rows(1, 4, 2, 8)[1:])
        assert cache.route == chosen
        calls = {(row.op, row.route): row.calls for row in cache.profile()}
        assert calls.pop(("update_cache.default", None)) == 2
        routes = ["large_heads", chosen]
        assert calls == {("sdpa_with_kv_cache.default", r): routes.count(r) for r in routes}
        with pytest.raises(KernelError, match="no route 'fast'; it has .*large_heads"):
            sdpa_with_kv_cache(*rows(1, 4, 2, 8), cache, route="fast")
        assert cache.length == 19
        check_again = sdpa_with_kv_cache(*rows(1, 4, 2, 8), cache)
        assert np.isfinite(check_again).all()


def test_memory_is_as_said_and_given_back() -> None:
    device = Runtime.get().device
    gc.collect()
    before = device.memory.live_bytes
    elements = 2 * 100 * 3 * 16
    for dtype, nbytes in {"f32": 4 * elements, "f16": 2 * elements, "int8": elements + elements // 4}.items():
        with KVCache(100, 3, 16, dtype) as cache:
            assert device.memory.live_bytes - before == cache.nbytes == nbytes
            sdpa_with_kv_cache(*rows(20, 3, 3, 16), cache)
        cache.close()
        assert device.memory.live_bytes == before
        with pytest.raises(ClosedError, match="KV cache is closed"):
            sdpa_with_kv_cache(*rows(1, 3, 3, 16), cache)


def test_sizes_grow_and_are_used_again() -> None:
    with KVCache(100, 1, 4) as cache:
        made = []
        for length in (1, 8, 9, 3, 16, 1, 30):
            sdpa_with_kv_cache(*rows(length, 1, 1, 4), cache)
            (executor,) = cache._executors.values()
            made.append(executor)
        assert [made.index(e) for e in made] == [0, 0, 2, 2, 2, 2, 6]


# -- bad input --------------------------------------------------------------------------------------------------------


def shaped(*shapes: Sequence[int]) -> list[Array]:
    return [np.zeros(s, np.float32) for s in shapes]


Q, K = (1, 2, 4, 8), (1, 2, 2, 8)


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        (shaped((2, 4, 8), K, K), {}, r"q has shape \[2, 4, 8\]"),
        (shaped((1, 3, 4, 8), K, K), {}, r"q has shape \[1, 3, 4, 8\], but must be \[1, 2, heads, 8\]"),
        (shaped((1, 2, 3, 8), K, K), {}, "a multiple of 2 heads"),
        (shaped((1, 2, 0, 8), K, K), {}, "a multiple of 2 heads"),
        (shaped((1, 2, 4, 12), K, K), {}, r"q has shape \[1, 2, 4, 12\]"),
        (shaped(Q, (1, 2, 3, 8), K), {}, r"k has shape \[1, 2, 3, 8\], but must be \[1, 2, 2, 8\]"),
        (shaped(Q, K, (1, 3, 2, 8)), {}, r"v has shape \[1, 3, 2, 8\], but must be \[1, 2, 2, 8\]"),
        (shaped((1, 0, 4, 8), (1, 0, 2, 8), (1, 0, 2, 8)), {}, r"q has shape \[1, 0, 4, 8\]"),
        (shaped((2, 2, 4, 8), K, K), {}, r"q has shape \[2, 2, 4, 8\]"),
        ([*shaped(Q, K), np.zeros(K)], {}, "v has dtype float64, but attention takes float32"),
        ([*shaped(Q, K), 3], {}, "v has dtype int"),
        ([*shaped(Q, K), object()], {}, "v is a object"),
        (shaped(Q, K, K), {"input_pos": -1}, "input_pos is -1"),
        (shaped(Q, K, K), {"input_pos": 4}, "at most the cache's length, 3"),
        (shaped(Q, K, K), {"input_pos": 1.0}, "must be an integer"),
        (shaped((1, 7, 4, 8), (1, 7, 2, 8), (1, 7, 2, 8)), {}, "7 rows from 3 on do not fit a KV cache of 9"),
    ],
)
def test_refused_calls_change_nothing(given: Any, more: dict[str, Any], message: str) -> None:
    with KVCache(9, 2, 8) as cache:
        expected = Expected(cache)
        check(cache, expected, 3, heads=4)
        with pytest.raises(InvalidInputError, match=message):
            sdpa_with_kv_cache(given[0], given[1], given[2], cache, **more)
        check(cache, expected, 1, heads=4)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 1, 4), "capacity 0"),
        ((1, 0, 4), "kv_heads 0"),
        ((1, 1, 6), "head_dim 6"),
        ((1.5, 1, 4), "capacity is 1.5"),
        ((1, 1, 4, "bf16"), "no KV cache dtype 'bf16'; choose f32, f16, int8"),
    ],
)
def test_caches_that_cannot_be(sizes: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        KVCache(*sizes)


@pytest.mark.parametrize("length", [-1, 4, 1.0, True])
def test_lengths_that_nothing_rewinds_to(length: Any) -> None:
    with KVCache(9, 1, 4) as cache:
        cache.append(*rows(3, 1, 1, 4)[1:])
        with pytest.raises(InvalidInputError):
            cache.rewind(length)
        assert cache.length == 3


def test_device_arrays_are_float32() -> None:
    with pytest.raises(InvalidInputError, match="dtype float64, but a DeviceArray is float32"):
        to_device(np.zeros(3))
