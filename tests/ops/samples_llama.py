"""Samples of ExecuTorch's operators for language models: caches of any dtype, attention over codes, rotations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .harness import Mutable, Out
from .samples import Input, Position, Sample, numbers

_rng = np.random.default_rng(0)
_CODES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-300, 300), "int32": (-300, 300)}


def _cache(*dims: int, dtype: str) -> Mutable:
    return Mutable(numbers(_rng, dims, dtype, *_CODES.get(dtype, (-2, 2))))


def caches() -> Iterator[Sample]:
    """Rows in place; of 3 heads a row is no whole word."""
    name = "llama.update_cache"
    for dtype in ("float16", "bfloat16", "int8", "int16", "uint8", "int32"):
        low, high = _CODES.get(dtype, (-2, 2))
        for batches, heads, width in ((1, 3, 1), (2, 2, 6), (1, 2, 8)):
            dims = (batches, 11, heads, width)
            value = Input(dims, dtype, live=(batches, 3, heads, width), low=low, high=high)
            cache = _cache(batches, 24, heads, width, dtype=dtype)
            yield Sample(f"{name}.default", [value, cache, Position(full=5, live=17)], Out((1,), dtype))
    for dtype, width in (("float32", 8), ("int8", 8), ("int8", 3), ("float16", 1)):
        low, high = _CODES.get(dtype, (-2, 2))
        value = Input((1, 7, 1, width), dtype, live=(1, 3, 1, width), low=low, high=high)
        indices = Input((1, 7), "int32", live=(1, 3), low=0, high=10)
        args = [value, _cache(1, 11, 1, width, dtype=dtype), 0, indices]
        yield Sample(f"{name}_with_indices.default", args, Out((1,), dtype))


def runs() -> Iterator[Sample]:
    """Runs of rows along any dimension, in place."""
    for dtype, width in (("float32", 3), ("int8", 3), ("float16", 8)):
        low, high = _CODES.get(dtype, (-2, 2))
        x = _cache(1 if width == 3 else 2, 11, 3, width, dtype=dtype)
        batches = x.array.shape[0]
        rows = Input((batches, 4, 3, width), dtype, low=low, high=high)
        out = Out(x.array.shape, dtype)
        yield Sample("et_webgpu.slice_scatter_.default", [x, rows, 1, 3, 7, 1], out)
        moving = Input((batches, 4, 3, width), dtype, live=(batches, 2, 3, width), low=low, high=high)
        ends = Position(full=3, live=9), Position(full=7, live=11)
        yield Sample("et_webgpu.slice_scatter_.default", [x, moving, 1, *ends, 1], out)
        one = Input((batches, 3, width), dtype, low=low, high=high)
        for index in (Position(full=0, live=10), -2):
            yield Sample("et_webgpu.select_scatter_.default", [x, one, 1, index], out)


def _codes(heads_first: bool, heads: int, rows: int, live: int, width: int) -> tuple[Input, Input, Input]:
    """Codes of rows and heads, with their zero points and scales."""
    most, less = ((1, heads, n, width) if heads_first else (1, n, heads, width) for n in (rows, live))
    tokens, fewer = (*most[:3], 1), (*less[:3], 1)
    return (
        Input(most, "int8", live=less, low=-128, high=127),
        Input(tokens, "int8", live=fewer, low=-9, high=9),
        Input(tokens, live=fewer, low=0.01, high=0.02),
    )


def attention_over_codes() -> Iterator[Sample]:
    for heads_first, masked, (heads, kv_heads, width) in (
        (False, False, (4, 2, 8)),
        (False, True, (3, 1, 16)),
        (True, False, (2, 2, 8)),
        (True, True, (6, 3, 4)),
    ):
        q, *of_q = _codes(heads_first, heads, 5, 2, width)
        k, *of_k = _codes(heads_first, kv_heads, 19, 19, width)
        v, *of_v = _codes(heads_first, kv_heads, 19, 19, width)
        mask = Input((5, 19), live=(2, 19)) if masked else None
        start = 0 if masked else Position(full=7, live=11)
        args: list[Any] = [q, k, v, start, mask, 0.0, not masked, None, *of_q, *of_k, *of_v, heads_first]
        out = Out((1, heads, 5, width) if heads_first else (1, 5, heads, width))
        yield Sample("llama.custom_quantized_sdpa.default", args, out)
    floats = [Input((1, 2, 5, 8), live=(1, 2, 3, 8)), *[Input((1, 2, 9, 8))] * 2]
    args = [*floats, Position(full=2, live=4), None, 0.0, False, 0.5, *[None] * 6, True]
    yield Sample("llama.custom_quantized_sdpa.default", args, Out((1, 2, 5, 8)))
    masked_floats = [Input((1, 5, 4, 8), live=(1, 3, 4, 8)), *[Input((1, 11, 2, 8))] * 2]
    args = [*masked_floats, 0, Input((5, 11), live=(3, 11)), 0.0, False, None]
    yield Sample("llama.custom_sdpa.default", args, Out((1, 5, 4, 8)))


def rotations() -> Iterator[Sample]:
    for width in (1, 2, 4, 8, 32, 1024, 28, 28 * 8):
        x = Input((3, 5, width), live=(3, 2, width))
        yield Sample("llama.fast_hadamard_transform.default", [x], Out(x.max_dims))


def delta_rule() -> Iterator[Sample]:
    for name, channels in (
        ("gated_delta_rule", ()),
        ("channelwise_gated_delta_rule", (5,)),
        ("gated_delta_rule", (5,)),
    ):
        decay = Input((2, 3, 7, *channels), live=(2, 3, 4, *channels), low=0, high=1)
        q, k = (Input((2, heads, 7, 5), live=(2, heads, 4, 5), low=-1, high=1) for heads in (6, 3))
        v, beta = Input((2, 3, 7, 11), live=(2, 3, 4, 11)), Input((2, 3, 7), live=(2, 3, 4), low=0, high=1)
        outs = [Out((2, 6, 7, 11)), Out((2, 3, 5, 11))]
        yield Sample(f"llama.{name}.default", [q, k, v, decay, beta, Input((2, 3, 5, 11))], outs)


FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (caches, runs, attention_over_codes, rotations, delta_rule)
