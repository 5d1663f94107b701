"""Attention without a program, in several threads."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from executorch_webgpu import ClosedError, InvalidInputError
from executorch_webgpu.attention import KVCache, sdpa_with_kv_cache, to_device
from tests.threads.together import pause, seeds, together

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 8

Rows = list[np.ndarray]


def random_rows(random: Random, count: int) -> list[Rows]:
    """q, k and v of each call, of many lengths."""
    rng = np.random.default_rng(random.randrange(2**32))
    lengths = [random.choice([1, 1, 2, 5, 13]) for _ in range(count)]
    return [
        [rng.standard_normal((1, length, heads, HEAD_DIM)).astype(np.float32) for heads in (HEADS, KV_HEADS, KV_HEADS)]
        for length in lengths
    ]


def cache(dtype: str = "f32") -> KVCache:
    return KVCache(128, KV_HEADS, HEAD_DIM, dtype)


def attend(calls: list[Rows], dtype: str, on_device: bool, rewinds: bool) -> list[bytes]:
    results = []
    with cache(dtype) as own:
        for q, k, v in calls:
            if rewinds:
                own.append(k, v)
                own.rewind(own.length - k.shape[1])
            out = sdpa_with_kv_cache(to_device(q) if on_device else q, k, v, own)
            results.append((out.numpy() if on_device else out).tobytes())
    return results


@pytest.mark.slow
@seeds(6)
def test_a_cache_each(random: Random) -> None:
    jobs = []
    for _ in range(3):
        calls, dtype = random_rows(random, 8), random.choice(["f32", "f16", "int8"])
        on_device, rewinds = random.random() < 0.5, random.random() < 0.3
        jobs.append(lambda a=(calls, dtype, on_device, rewinds): attend(*a))
    expected = [job() for job in jobs]
    assert together(random, jobs) == expected


@seeds(3)
def test_calls_of_one_cache_run_one_after_another(random: Random) -> None:
    """Every row arrives once, and each call sees whole calls before it: its mean of values tells how many rows."""
    with cache() as shared:
        zeros, one = np.zeros((1, 2, HEADS, HEAD_DIM), np.float32), np.ones((1, 2, KV_HEADS, HEAD_DIM), np.float32)
        shared.append(one, 0 * one)

        def job() -> list[int]:
            seen = []
            for _ in range(10):
                out = sdpa_with_kv_cache(zeros, one, one, shared)  # all rows weigh the same; two of them are zeros
                seen.append(round(2 / (1 - float(out[0, -1, 0, 0]))))
            return seen

        lengths = together(random, [job] * 3)
        assert shared.length == 62
    assert sorted(length for of_thread in lengths for length in of_thread) == list(range(4, 63, 2))


@seeds(4)
def test_a_cache_that_is_closed_meanwhile(random: Random) -> None:
    calls = random_rows(random, 8)
    expected = attend(calls, "f32", False, False)
    shared = cache()
    on_device: list[Any] = [[to_device(x) for x in rows] for rows in calls]

    def use() -> None:
        for (q, k, v), result in zip(on_device, expected, strict=True):
            assert sdpa_with_kv_cache(q, k, v, shared).numpy().tobytes() == result

    def close() -> None:
        pause(random)
        for closed in random.choice([[shared], [array for rows in on_device for array in rows]]):
            closed.close()

    def look() -> Any:
        return shared.profile(), shared.length, shared.nbytes

    together(random, [use, close, look], (ClosedError, InvalidInputError))
    shared.close()
