"""Samples of pooling, resampling, padding, and normalization of channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from executorch_webgpu.ops.resample.upsample import OPERATORS
from executorch_webgpu.ops.values import ELEMENT_TYPES

from .harness import Const, Out
from .samples import Input, Position, Sample

NUMERIC = ("float32", "float16", "bfloat16", "int32", "uint8", "int8", "int16")
# By the number of dimensions: their sizes, and into how many parts they are divided.
PARTS: dict[int, tuple[tuple[int, ...], list[int]]] = {
    1: ((13,), [4]),
    2: ((9, 11), [3, 13]),
    3: ((5, 4, 7), [2, 3, 2]),
}


def _planes(*sizes: int, dtype: str = "float32", **more: Any) -> Input:
    """An input [2, 3, sizes...], all of which shrink."""
    live = (1, 2, *(max(n - 2, 1) for n in sizes))
    return Input((2, 3, *sizes), live=live, dtype=dtype, **more)


def pooling() -> Iterator[Sample]:
    for dtype in NUMERIC:
        args = [_planes(9, 11, dtype=dtype, low=-9, high=9), [3, 2], [2, 3], [1, 1], [1, 2], True]
        dims = (2, 3, 5, 4)
        yield Sample("aten.max_pool2d.default", args, Out(dims, dtype))
        yield Sample("aten.max_pool2d_with_indices.default", args, [Out(dims, dtype), Out(dims, "int32")])
    plain = [Input((3, 7, 8), live=(2, 6, 5), low=0, high=2, dtype="int32"), [2], [], 0, 1, False]
    yield Sample("aten.max_pool2d_with_indices.default", plain, [Out((3, 3, 4), "int32"), Out((3, 3, 4), "int32")])
    line: Any = ([_planes(13), [3], [2], [0], [1], False], (2, 3, 6))
    cube: Any = ([_planes(5, 4, 7), [3, 2, 2], [2, 1, 2], [0], [1], False], (2, 3, 2, 3, 3))
    for n, (args, dims) in ((1, line), (3, cube)):
        yield Sample(f"aten.max_pool{n}d.default", args, Out(dims))
        yield Sample(f"aten.max_pool{n}d_with_indices.default", args, [Out(dims), Out(dims, "int32")])
    for n, (sizes, parts) in PARTS.items():
        outs = [Out((2, 3, *parts)), Out((2, 3, *parts), "int32")]
        yield Sample(f"aten.adaptive_max_pool{n}d.default", [_planes(*sizes), parts], outs)


def average_pooling() -> Iterator[Sample]:
    for dtype in ("float32", "float16", "bfloat16", "int32"):
        for ceil, padded, divisor in itertools.product((False, True), (False, True), (None, 5)):
            args = [_planes(8, 11, dtype=dtype, low=-9, high=9), [3, 2], [2, 3], [1, 0], ceil, padded, divisor]
            yield Sample("aten.avg_pool2d.default", args, Out((2, 3, 5 if ceil else 4, 4), dtype))
    yield Sample("aten.avg_pool1d.default", [_planes(13), [3], [2], [1], False, True], Out((2, 3, 7)))
    for dtype, size in (("float32", 18), ("float16", 18), ("int32", 16)):  # equal parts only at live sizes, or at load
        args = [_planes(size, size, dtype=dtype, low=-9, high=9), [8, 8], [], 0, False, True, None]
        yield Sample("aten.avg_pool2d.default", args, Out((2, 3, 2, 2), dtype))
    args = [_planes(5, 4, 7), [3, 2, 2], [2, 1, 2], 0, False, True, None]
    yield Sample("aten.avg_pool3d.default", args, Out((2, 3, 2, 3, 3)))
    for prefix, n in (("", 1), ("", 2), ("", 3), ("_", 2), ("_", 3)):
        sizes, parts = PARTS[n]
        for each in (parts, [1] * n):
            yield Sample(f"aten.{prefix}adaptive_avg_pool{n}d.default", [_planes(*sizes), each], Out((2, 3, *each)))


def resampling() -> Iterator[Sample]:
    sizes = {1: (5,), 2: (5, 6), 3: (3, 4, 5)}
    for name, (mode, n) in OPERATORS.items():
        corners = (False, True) if mode.corners else (None,)
        for dtype, aligned in itertools.product(mode.dtypes, corners):
            x = _planes(*sizes[n], dtype=dtype)
            how = [] if aligned is None else [aligned]
            size = [7, 3, 9][:n]
            yield Sample(f"aten.{name}.default", [x, size, *how, *[None] * n], Out((2, 3, *size), dtype))
            doubled = tuple(int(length * 2.0) for length in sizes[n])
            yield Sample(f"aten.{name}.vec", [x, None, *how, [2.0] * n], Out((2, 3, *doubled), dtype))
    x = _planes(5, 6)
    yield Sample("aten.upsample_nearest2d.vec", [x, [Position(full=8, live=3), 7], None], Out((2, 3, 8, 7)))
    yield Sample("aten.upsample_bilinear2d.vec", [x, None, False, [0.6, 1.5]], Out((2, 3, 3, 9)))


def grids() -> Iterator[Sample]:
    for dtype in ("float32", "float16", "bfloat16"):
        x, grid = _planes(5, 7, dtype=dtype), Input((2, 4, 6, 2), live=(1, 3, 5, 2), dtype=dtype, low=-3, high=3)
        for mode, padding, corners in itertools.product(range(3), range(3), (False, True)):
            yield Sample("aten.grid_sampler_2d.default", [x, grid, mode, padding, corners], Out((2, 3, 4, 6), dtype))
    for dtype, offset in (("float32", 0.5), ("int32", 1)):
        yield Sample("et_vk.grid_priors.default", [_planes(5, 7), 8, offset], Out((35, 2), dtype))


def padding() -> Iterator[Sample]:
    for dtype in ELEMENT_TYPES:
        x = _planes(5, 7, dtype=dtype, low=-9, high=9)
        yield Sample("aten.constant_pad_nd.default", [x, [1, 2, -1, 3], 2.0], Out((2, 3, 7, 10), dtype))
        for mode in ("reflection", "replication"):
            yield Sample(f"aten.{mode}_pad2d.default", [x, [1, 2, -1, 2]], Out((2, 3, 6, 10), dtype))
    around = [0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 1]
    x = Input((2, 1, 2, 1, 2, 1, 3, 5), live=(2, 1, 1, 1, 2, 1, 2, 3))
    yield Sample("aten.constant_pad_nd.default", [x, around, None], Out((2, 1, 2, 1, 2, 1, 6, 5)))
    for mode in ("reflection", "replication"):
        yield Sample(f"aten.{mode}_pad1d.default", [_planes(7), [3, 2]], Out((2, 3, 12)))
        yield Sample(f"aten.{mode}_pad3d.default", [_planes(4, 5, 6), [3, -1, 0, 2, 1, 1]], Out((2, 3, 6, 7, 8)))


def _per_channel(channels: int, dtype: str, low: float = -1) -> Const:
    return Const(np.linspace(low, 2, channels).astype(dtype))


def channel_norms() -> Iterator[Sample]:
    for dtype, affine in (
        ("float32", "float32"),
        ("float16", "float16"),
        ("bfloat16", "bfloat16"),
        ("float16", "float32"),
    ):
        for weight, bias in itertools.product((None, _per_channel(6, affine)), (None, _per_channel(6, affine))):
            x = Input((3, 6, 5, 7), live=(2, 6, 5, 4), dtype=dtype)
            stats = [_per_channel(6, affine), _per_channel(6, affine, low=0.5)]
            outs = [Out(x.max_dims, dtype), Out((0,), dtype), Out((0,), dtype)]
            args = [x, weight, bias, *stats, 0.1, 1e-5]
            yield Sample("aten._native_batch_norm_legit_no_training.default", args, outs)
            if weight is not None:
                for name in ("_native_batch_norm_legit", "native_batch_norm"):
                    yield Sample(f"aten.{name}.default", [*args[:5], False, 0.1, 1e-5], outs)
            outs = [Out(x.max_dims, dtype), Out((6,), dtype), Out((6,), dtype)]
            yield Sample("aten._native_batch_norm_legit.no_stats", [x, weight, bias, True, 0.1, 1e-5], outs)
            outs = [Out(x.max_dims, dtype), Out((3, 2), dtype), Out((3, 2), dtype)]
            yield Sample("aten.native_group_norm.default", [x, weight, bias, 3, 6, 35, 2, 1e-5], outs)
    x = Input((2, 3, 88, 100), live=(1, 3, 87, 100))
    own = [Out(x.max_dims), Out((3,)), Out((3,))]
    yield Sample("aten._native_batch_norm_legit.no_stats", [x, None, None, True, 0.1, 1e-5], own)
    groups = [Out(x.max_dims), Out((2, 1)), Out((2, 1))]
    yield Sample("aten.native_group_norm.default", [x, None, None, 2, 3, 8800, 1, 1e-5], groups)
    row = Input((7, 5), live=(2, 5))
    yield Sample(
        "aten._native_batch_norm_legit_no_training.default",
        [row, None, None, _per_channel(5, "float32"), _per_channel(5, "float32", low=0.5), 0.1, 1e-5],
        [Out((7, 5)), Out((0,)), Out((0,))],
    )


def distances() -> Iterator[Sample]:
    a, b = Input((3, 1, 7, 5), live=(2, 1, 3, 5)), Input((4, 11, 5), live=(3, 4, 5))
    for p in (0, 1, 2.0, math.inf, 2.5):
        if p != 0:  # it does not depend on what is drawn
            yield Sample("aten._cdist_forward.default", [a, b, p, None], Out((3, 4, 7, 11)))
        yield Sample("aten._pdist_forward.default", [Input((13, 5), live=(6, 5)), p], Out((78,)))
    digits = [Const(np.arange(n * 4, dtype=np.float32).reshape(n, 4) % 3) for n in (5, 7)]
    yield Sample("aten._cdist_forward.default", [*digits, 0, None], Out((5, 7)))
    both = [Input((3, 7, 5), live=(2, 3, 5)), Input((3, 11, 5), live=(2, 4, 5)), 2.0, 1]
    yield Sample("aten._cdist_forward.default", both, Out((3, 7, 11)))
