"""Samples of quantization, of operators on 8-bit tensors, and of linear layers that quantize what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .harness import Const, Mutable, Out
from .samples import Input, Sample

INT8, UINT8, INT32 = (-128, 127, None), (0, 255, None), (-(2**20), 2**20, None)
INT16 = (-(2**15), 2**15 - 1, None)
RANGES = {"int8": INT8, "uint8": UINT8, "int16": INT16, "int32": INT32}

_rng = np.random.default_rng(0)


def _codes(*dims: int, dtype: str = "int8", live: tuple[int, ...] | None = None) -> Input:
    low, high, _ = RANGES[dtype]
    return Input(dims, dtype, live=live, low=low, high=high)


def _scales(*dims: int, live: tuple[int, ...] | None = None, dtype: str = "float32") -> Input:
    return Input(dims, dtype, live=live, low=0.01, high=0.1)


def _zeros(*dims: int, live: tuple[int, ...] | None = None, dtype: str = "int32") -> Input:
    return Input(dims, dtype, live=live, low=-9, high=9)


def quantize() -> Iterator[Sample]:
    """To codes, by every kind of blocks."""
    prefix = "quantized_decomposed.quantize_per"
    x = Input((7, 13), live=(3, 13), low=-9, high=9)
    for dtype, bounds in RANGES.items():
        yield Sample(f"{prefix}_tensor.default", [x, 0.05, 3, *bounds], Out((7, 13), dtype))
    for dtype in ("float16", "bfloat16"):
        half = Input((7, 13), dtype, live=(3, 13))
        yield Sample(f"{prefix}_tensor.default", [half, 0.05, -3, *INT8], Out((7, 13), "int8"))
    for zero in ("int32", "int8", "float32"):
        args: list[Any] = [x, _scales(1), _zeros(1, dtype=zero), *INT8]
        yield Sample(f"{prefix}_tensor.tensor", args, Out((7, 13), "int8"))
    for dims, axis in (((7, 13), 0), ((5, 7, 6), 1), ((5, 7, 8), -2), ((3, 8), 1)):
        channels = dims[axis]
        varied = Input(dims, live=(*(2 if a == 0 != axis else d for a, d in enumerate(dims)),), low=-9, high=9)
        args = [varied, _scales(channels), _zeros(channels), axis, *INT8]
        yield Sample(f"{prefix}_channel.default", args, Out(dims, "int8"))
    for width in (13, 16):
        tokens = [_scales(2, 7, 1, live=(2, 3, 1)), _zeros(2, 7, 1, live=(2, 3, 1))]
        args = [Input((2, 7, width), live=(2, 3, width), low=-9, high=9), *tokens, *INT8]
        yield Sample(f"{prefix}_token.default", args, Out((2, 7, width), "int8"))
    rows = Input((7, 24), live=(3, 24), low=-9, high=9)
    groups = [_scales(7, 3, live=(3, 3)), _zeros(7, 3, live=(3, 3))]
    yield Sample(f"{prefix}_channel_group.default", [rows, *groups, *INT8, 8], Out((7, 24), "int8"))
    yield Sample("torchao.quantize_affine.default", [rows, [1, 8], *groups, *_affine(None, 7)], Out((7, 24), "int8"))
    blocks = [_scales(3, 2, live=(1, 2)), _zeros(3, 2, live=(1, 2))]
    args = [Input((6, 5, 4), live=(2, 5, 4)), [2, 5, 2], *blocks, 1, None, None]
    yield Sample("torchao.quantize_affine.default", args, Out((6, 5, 4), "int8"))
    args = [Input((3, 13)), [3, 13], _scales(), None, 0, 0, 255]
    yield Sample("torchao.quantize_affine.default", args, Out((3, 13), "uint8"))


def _affine(low: int | None, high: int | None) -> list[Any]:
    return [1, low, high]


def dequantize() -> Iterator[Sample]:
    """From codes, by every kind of blocks."""
    prefix = "quantized_decomposed.dequantize_per"
    for dtype, bounds in RANGES.items():
        x = _codes(7, 13, dtype=dtype, live=(3, 13))
        yield Sample(f"{prefix}_tensor.default", [x, 0.05, 3, *bounds, None], Out((7, 13)))
    x = _codes(7, 13, live=(3, 13))
    yield Sample(f"{prefix}_tensor.default", [x, 0.05, 3, *INT8, None], Out((7, 13), "float16"))
    yield Sample(f"{prefix}_tensor.tensor", [x, _scales(1), _zeros(1), *INT8, None], Out((7, 13)))
    yield Sample(f"{prefix}_tensor.tensor", [x, _scales(1, dtype="float16"), _zeros(1), *INT8, None], Out((7, 13)))
    for zero in (_zeros(7), None):
        args: list[Any] = [_codes(5, 7, 6, live=(2, 7, 6)), _scales(7), zero, 1, *INT8, None]
        yield Sample(f"{prefix}_channel.default", args, Out((5, 7, 6)))
    tokens = [_scales(7, 1, live=(3, 1)), _zeros(7, 1, live=(3, 1))]
    yield Sample(f"{prefix}_token.default", [x, *tokens, *INT8, None], Out((7, 13)))
    rows = _codes(7, 24, live=(3, 24))
    groups = [_scales(7, 3, live=(3, 3)), _zeros(7, 3, live=(3, 3))]
    yield Sample(f"{prefix}_channel_group.default", [rows, *groups, *INT8, 8, None], Out((7, 24)))
    yield Sample("torchao.dequantize_affine.default", [rows, [1, 8], *groups, None, -8, 7, None], Out((7, 24)))
    constant = [Const(np.linspace(0.01, 0.2, 3, dtype=np.float32)), Const(np.arange(3, dtype=np.int8))]
    args = [_codes(4, 3, 6, live=(2, 3, 6)), [4, 1, 6], *constant, 1, None, None, None]
    yield Sample(
        "torchao.dequantize_affine.default", [*args[:1], [2, 1, 6], *_half_blocks(), *args[4:]], Out((4, 3, 6))
    )


def _half_blocks() -> list[Any]:
    return [_scales(2, 3, live=(1, 3)), _zeros(2, 3, live=(1, 3), dtype="int8")]


def choose_qparams() -> Iterator[Sample]:
    """Scales and zero points of whole tensors, rows and blocks."""
    prefix = "quantized_decomposed.choose_qparams"
    single = [Out((1,)), Out((1,), "int32")]
    yield Sample(f"{prefix}.tensor", [Input((7, 13), live=(3, 13)), *_byte(1e-5)], single)
    yield Sample(f"{prefix}.tensor", [Input((9, 1013), live=(2, 1013)), *_byte(1e-5)], single)
    yield Sample(f"{prefix}_symmetric.tensor", [Input((7, 13), live=(3, 13)), *_byte(1e-5)], single)
    for dtype in ("float32", "float16", "bfloat16"):
        x = Input((2, 7, 37), dtype, live=(2, 3, 37), low=-1, high=4)
        outs = [Out((2, 7, 1)), Out((2, 7, 1), "int32")]
        yield Sample(f"{prefix}_per_token.default", [x, 1], [outs[0], Out((2, 7, 1))])
        yield Sample(f"{prefix}_per_token.default", [x, 1], outs)
        for name in (
            f"{prefix}_per_token_asymmetric",
            "quantized_decomposed._choose_qparams_per_token_asymmetric_impl",
        ):
            yield Sample(f"{name}.default", [x, 1], outs)
    name = "torchao.choose_qparams_affine.default"
    tokens, groups = Input((7, 24), live=(3, 24), low=-3, high=1), Input((5, 4, 6), live=(3, 4, 6))
    for mapping in ("ASYMMETRIC", "SYMMETRIC", "SYMMETRIC_NO_CLIPPING_ERR"):
        args: list[Any] = [tokens, mapping, [1, 24], None, -128, 127, None, None, None, False]
        yield Sample(name, args, [Out((7,)), Out((7,), "int8")])
        args = [tokens, mapping, [1, 8], 1, -8, 7, 1e-4, None, None, True]
        yield Sample(name, args, [Out((7, 3)), Out((7, 3), "int32")])
    args = [groups, "ASYMMETRIC", [1, 4, 2], 0, None, None, None, None, None, False]
    yield Sample(name, args, [Out((5, 3)), Out((5, 3), "uint8")])


def quantized_embedding() -> Iterator[Sample]:
    indices = Input((3, 5), "int32", live=(2, 5), low=0, high=10)
    for name, dtype, row, width in (
        ("embedding_byte", "int8", 13, 13),
        ("embedding_byte", "uint8", 8, 8),
        ("embedding_4bit", "uint8", 6, 12),
        ("embedding_2bit", "uint8", 2, 8),
    ):
        low, high, _ = RANGES[dtype]
        table = Const(_rng.integers(low, high, (11, row), endpoint=True).astype(dtype))
        for scales, zeros in ((_floats(11, low=0.01), None), (_floats(11, 1, low=0.01), _floats(11, 1))):
            args: list[Any] = [table, scales, zeros, low, high, indices]
            yield Sample(f"quantized_decomposed.{name}.default", args, Out((3, 5, width)))
            yield Sample(f"quantized_decomposed.{name}.dtype", [*args, None], Out((3, 5, width)))
        if width % 4 == 0:
            args = [table, _floats(11, 4, low=0.01), _floats(11, 4), low, high, indices, 5]
            yield Sample(f"quantized_decomposed.{name}.dtype", args, Out((3, 5, width), "float16"))


def _byte(eps: float) -> list[Any]:
    return [-128, 127, eps, 1]


def q8ta_elements() -> Iterator[Sample]:
    """Scales are powers of two, so that ties are ties whatever a device rounds."""
    prefix = "et_vk.q8ta"
    for a, b in (((7, 13), (7, 13)), ((7, 13), (1, 13)), ((5, 1, 8), (3, 1))):
        lives = [(1, 13) if a[0] == 7 else dims for dims in (a, b)]
        inputs = [_codes(*dims, live=live) for dims, live in zip((a, b), lives, strict=True)]
        dims = np.broadcast_shapes(a, b)
        for alpha in (1.0, -2.0):
            args: list[Any] = [*inputs, 0.0625, 3, 0.25, -7, 0.5, -2, alpha]
            yield Sample(f"{prefix}_add.default", args, Out(dims, "int8"))
    yield Sample(f"{prefix}_relu.default", [_codes(7, 13, live=(3, 13)), 0.0625, 5, 0.25, -100], Out((7, 13), "int8"))
    for dims, factor, out in (((3, 8, 2, 5), 2, (3, 2, 4, 10)), ((2, 9, 2, 4), 3, (2, 1, 6, 12))):
        args = [_codes(*dims, live=(1, *dims[1:])), 0.0625, 5, 8.0, -3, factor]
        yield Sample(f"{prefix}_pixel_shuffle.default", args, Out(out, "int8"))


def _int8(*dims: int) -> Const:
    return Const(_rng.integers(-127, 128, dims).astype(np.int8))


def _floats(*dims: int, low: float = -1, high: float = 1) -> Const:
    return Const(_rng.uniform(low, high, dims).astype(np.float32))


def _powers(*dims: int) -> Const:
    """Scales that are powers of two: with them, what a device rounds is exact, and ties are ties."""
    return Const(np.exp2(_rng.integers(-9, -5, dims)).astype(np.float32))


def _eighths(*dims: int) -> Const:
    return Const((_rng.integers(-80, 80, dims) / 8).astype(np.float32))


def q8ta_products() -> Iterator[Sample]:
    """Convolutions and linear layers of codes, by both routes."""
    for route in ("direct", "gemm", "gemv"):
        for n, k in ((13, 37), (16, 24), (7, 5)):
            for bias, activation in ((_eighths(-(-n // 4) * 4), "none"), (None, "relu")):
                args: list[Any] = [_codes(2, 5, k, live=(1, 5, k)), 0.0625, -3, _int8(n, k), _sums(n), _powers(n)]
                out = Out((2, 5, n), "int8")
                for name in ("q8ta_linear", "q8ta_linear_gemv"):
                    yield _routed(f"et_vk.{name}.default", [*args, 0.5, 5, bias, activation], out, route)
        if route != "gemv":
            yield from _convolutions(route)


def _sums(n: int) -> Const:
    return Const(np.zeros(n, np.int32))


def _routed(op: str, args: list[Any], out: Out, route: str) -> Sample:
    family = op.split(".")[1].removesuffix("_gemv")
    return Sample(op, args, out, {"routes": {family: route}})


def _convolutions(route: str) -> Iterator[Sample]:
    """Kernel, stride, padding, dilation and groups; and planes that are whole words, and that are not."""
    for (channels, size, kernel, lists, groups), live in (
        (((3, 8), (8, 8), (3, 3), ([1, 1], [1, 1], [1, 1]), 1), 8),
        (((8, 6), (7, 5), (3, 2), ([2, 1], [0, 1], [1, 2]), 2), 6),
        (((6, 9), (5, 4), (1, 1), ([1, 1], [0, 0], [1, 1]), 1), 4),
    ):
        into, out_channels = channels
        heights = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, *lists, strict=True)]
        x = _codes(2, into, *size, live=(1, into, live, size[1]))
        weights = _int8(out_channels, -(-kernel[0] * kernel[1] * into // groups // 4) * 4)
        rest = [list(kernel), *lists, groups]
        for bias, activation in ((_eighths(12), "none"), (None, "relu")):
            args = [x, 0.0625, -3, weights, _sums(12), _powers(12), 0.5, 5, bias, *rest, activation]
            for name in ("q8ta_conv2d", "q8ta_conv2d_pw"):
                yield _routed(f"et_vk.{name}.default", args, Out((2, out_channels, *heights), "int8"), route)
    x = _codes(2, 12, 7, 6, live=(1, 12, 5, 6))
    args = [x, 0.0625, 3, _int8(3, 2, 12), _sums(12), _powers(12), 0.5, 5, _eighths(12)]
    args += [[3, 2], [2, 1], [1, 0], [1, 2], 12, "none"]
    yield _routed("et_vk.q8ta_conv2d_dw.default", args, Out((2, 12, 4, 4), "int8"), route)
    for groups, output_padding in ((1, [0, 0]), (2, [1, 0])):
        x = _codes(2, 6, 5, 4, live=(1, 6, 3, 4))
        args = [x, 0.0625, 3, _int8(8, 36 // groups), _sums(8), _powers(8), 0.5, 5, _eighths(8)]
        args += [[3, 2], [2, 1], [1, 0], output_padding, [1, 2], groups, "relu" if groups == 1 else "none"]
        out = Out((2, 8, 9 + output_padding[0], 6), "int8")
        yield _routed("et_vk.q8ta_conv2d_transposed.default", args, out, route)


def quantizing_linear() -> Iterator[Sample]:
    """Linear layers that quantize what they read, and those of 4 bits by channels."""
    for route in ("columns", "gemv", "gemm"):
        for n, k in ((13, 37), (16, 32)):
            options = {"routes": {"linear_q8ta_q8csw": route}}
            for x in (_codes(7, k, live=(3, k)), Input((7, k), live=(3, k))):
                bias = _floats(-(-n // 4) * 4) if n == 13 else None
                args: list[Any] = [x, 0.05, 3, _int8(n, k), _sums(n), _floats(n, low=0.01, high=0.1), bias]
                yield Sample("et_vk.linear_q8ta_q8csw.default", args, Out((7, n)), options)
            nibbles = Const(_rng.integers(0, 256, (n, -(-k // 2))).astype(np.uint8))
            args = [Input((7, k), live=(3, k)), nibbles, _floats(n, low=0.01, high=0.1)]
            yield Sample("et_vk.linear_qcs4w.default", args, Out((7, n)), {"routes": {"linear_qcs4w": route}})
        for n, k, zero in ((13, 40, "int8"), (16, 64, "int32")):
            padded = -(-n // 4) * 4
            nibbles = Const(_rng.integers(0, 256, (n, k // 2)).astype(np.uint8))
            scales = _floats(-(-k // 32), padded, low=0.01, high=0.1)
            given = [Input((7, k), live=(3, k)), _scales(7, live=(3,)), _zeros(7, live=(3,), dtype=zero)]
            args = [*given, nibbles, _sums(padded), scales, 32, _floats(padded) if n == 13 else None]
            options = {"routes": {"linear_dq8ca_q4gsw": route}}
            yield Sample("et_vk.linear_dq8ca_q4gsw.default", args, Out((7, n)), options)
            args = [given[0], nibbles, scales, 32, args[-1]]
            yield Sample(
                "et_webgpu.linear_q4gsw_dq8.default", args, Out((7, n)), {"routes": {"linear_q4gsw_dq8": route}}
            )


def training() -> Iterator[Sample]:
    for width in (7, 1031):
        args: list[Any] = [Input((5, width), live=(3, width)), Input((5,), "int32", live=(3,), low=-2, high=6), 4.0]
        yield Sample("et_vk.fused_ce.default", args, [Out(()), Out((5, width))])
    args = [Input((2, 7, 13), live=(1, 7, 13)), Input((14, 37), live=(7, 37))]
    yield Sample("et_vk.linear_dW.default", args, Out((13, 37)))
    weights = Const(_rng.integers(0, 256, (13, 20)).astype(np.uint8))
    args = [Input((2, 7, 13), live=(1, 7, 13)), weights, _floats(5, 16, low=0.01, high=0.1), 8]
    yield Sample("et_vk.linear_q4gsw_backward.default", args, Out((2, 7, 40)))
    for n, k in ((5, 13), (6, 64)):
        latent = Input((n, k), live=(3, k))
        args = [latent, _floats(-(-k // 8), 8, low=0.05, high=0.3), 8]
        yield Sample("et_vk.q4gsw_requant.default", args, Out((n, -(-k // 2)), "uint8"))
    state = [Mutable(_floats(7, 13).array), Mutable(_floats(7, 13).array), Mutable(_floats(7, 13, low=0).array)]
    moments = [Input((7, 13), live=(3, 13)), Input((7, 13), live=(3, 13), low=0)]
    for first in (state, [Input((7, 13), live=(3, 13)), *moments]):
        args = [*first, Input((7, 13), live=(7 if first is state else 3, 13)), 0.01, 0.9, 0.999, 1e-8, 0.1, 0.19, 0.002]
        yield Sample("et_vk.adamw_step.default", args, [Out((7, 13))] * 3)


QUANTIZE: tuple[Callable[[], Iterator[Sample]], ...] = (
    quantize,
    dequantize,
    choose_qparams,
    quantized_embedding,
    q8ta_elements,
    q8ta_products,
    quantizing_linear,
    training,
)
