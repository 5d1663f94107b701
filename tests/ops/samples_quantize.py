"""Samples of quantization, of operators on 8-bit tensors, and of linear layers that quantize what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .harness import Const, Out
from .samples import Input, Sample

INT8, UINT8, INT32 = (-128, 127, None), (0, 255, None), (-(2**20), 2**20, None)
RANGES = {"int8": INT8, "uint8": UINT8, "int32": INT32}


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
    half = Input((7, 13), "float16", live=(3, 13))
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
    for dtype in ("float32", "float16"):
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


QUANTIZE: tuple[Callable[[], Iterator[Sample]], ...] = (
    quantize,
    dequantize,
    choose_qparams,
    q8ta_elements,
)
