"""Numbers to codes and back with one scale for a tensor, for each channel, or for each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut, any_axis
from ..shapes import ceil_div, normalize_dim
from ..sizes import like_first
from ..values import Dims, Tensor
from .blocks import Blocks
from .numbers import Array, dequantized, dequantized_exactly, inverse, quantized, quantized_by
from .plan import Numbers, QParams, run_affine

# -- one scale for a tensor -------------------------------------------------------------------------------------------


@op(
    "quantized_decomposed.quantize_per_tensor.default",
    reference=lambda x, scale, zero, low, high, dtype: quantized_by(x, np.float32(inverse(scale)), zero, low, high),
    promoted=("x",),
    discontinuous=True,
    elementwise=True,
)
def quantize_per_tensor(
    planner: Planner,
    x: Tensor,
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    dtype: Any,
    out: Tensor,
) -> None:
    """round(x * (1 / scale)) + zero_point between quant_min and quant_max; a half goes to the even integer.

    ``x`` holds floats, ``out`` int8, uint8, int16 or int32. Like torch on x86, NaN becomes 0, of int32 its lowest.
    """
    run_affine(planner, "quantize", x, out, Numbers(scale, _zero(planner, zero_point)), (quant_min, quant_max))


@op(
    "quantized_decomposed.dequantize_per_tensor.default",
    reference=lambda x, scale, zero, *_: dequantized(x, np.float32(scale), zero),
    elementwise=True,
)
def dequantize_per_tensor(
    planner: Planner,
    x: Tensor,
    scale: float,
    zero_point: int,
    quant_min: int | None,
    quant_max: int | None,
    dtype: Any,
    out_dtype: Any,
    out: Tensor,
) -> None:
    """(x - zero_point) * scale of integers, as floats."""
    run_affine(planner, "dequantize", x, out, Numbers(scale, _zero(planner, zero_point)))


def _zero(planner: Planner, zero: int) -> int:
    planner.check(-(2**31) <= zero < 2**31, f"zero point {zero} does not fit in 32 bits")
    return int(zero)


@op(
    "quantized_decomposed.quantize_per_tensor.tensor",
    reference=lambda x, scale, zero, low, high, dtype: quantized(x, scale.reshape(()), zero.reshape(()), low, high),
    promoted=("x",),
    discontinuous=True,
    sizes=like_first,
    rows=any_axis,
)
def quantize_per_tensor_tensor(
    planner: Planner,
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    dtype: Any,
    out: Tensor,
) -> None:
    """As ``quantize_per_tensor.default``, with scale and zero point in tensors of one element."""
    run_affine(planner, "quantize", x, out, QParams(scale, zero_point, None), (quant_min, quant_max))


@op(
    "quantized_decomposed.dequantize_per_tensor.tensor",
    reference=lambda x, scale, zero, *_: dequantized(x, scale.reshape(()), zero.reshape(())),
    sizes=like_first,
    rows=any_axis,
)
def dequantize_per_tensor_tensor(
    planner: Planner,
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int | None,
    quant_max: int | None,
    dtype: Any,
    out_dtype: Any,
    out: Tensor,
) -> None:
    """As ``dequantize_per_tensor.default``, with scale and zero point in tensors of one element."""
    run_affine(planner, "dequantize", x, out, QParams(scale, zero_point, None))


# -- one scale for each block -----------------------------------------------------------------------------------------


def spread(values: Array | None, dims: Dims, sizes: Sequence[int]) -> Array:
    """Of every element the value of its block; 0 for None."""
    if values is None:
        return np.zeros(dims, np.int64)
    counts = [ceil_div(d, b) for d, b in zip(dims, sizes, strict=True)]
    spread = np.asarray(values).reshape(counts)
    for axis, size in enumerate(sizes):
        spread = np.repeat(spread, size, axis=axis)
    return spread


def _channels(planner: Planner, name: str, x: Tensor, axis: int) -> Blocks:
    axis = normalize_dim(axis, x.rank)
    planner.check(0 <= axis < x.rank, f"{name}: {x} has no axis {axis}")
    return Blocks(x.dims, tuple(1 if a == axis else max(d, 1) for a, d in enumerate(x.dims)))


def _channel_sizes(dims: Dims, axis: int) -> list[int]:
    return [1 if a == axis % len(dims) else max(d, 1) for a, d in enumerate(dims)]


def per_channel_rows(cut: Cut, x: Tensor, scales: Tensor, zero: Tensor | None, axis: int, *rest: Any) -> int | None:
    """Every axis but that of channels; that one with the scales, where they are inputs."""
    axis = normalize_dim(axis, x.rank)
    if (only := cut.only(x)) is not None:
        return None if only == axis else only
    given = [scales] if zero is None else [scales, zero]
    return axis if cut.axes == {x.id: axis, **{t.id: 0 for t in given}} and not cut.counts else None


def quantize_per_channel_reference(
    x: Array, scales: Array, zeros: Array, axis: int, low: float, high: float, dtype: Any
) -> Array:
    sizes = _channel_sizes(x.shape, axis)
    return quantized(x, spread(scales, x.shape, sizes), spread(zeros, x.shape, sizes), low, high)


@op(
    "quantized_decomposed.quantize_per_channel.default",
    reference=quantize_per_channel_reference,
    promoted=("x",),
    discontinuous=True,
    sizes=like_first,
    rows=per_channel_rows,
)
def quantize_per_channel(
    planner: Planner,
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: Any,
    out: Tensor,
) -> None:
    """As ``quantize_per_tensor``, with a scale and a zero point for every index of ``axis``."""
    blocks = _channels(planner, "quantize_per_channel", x, axis)
    run_affine(planner, "quantize", x, out, QParams(scales, zero_points, blocks), (quant_min, quant_max))


def dequantize_per_channel_reference(x: Array, scales: Array, zeros: Array | None, axis: int, *_: Any) -> Array:
    sizes = _channel_sizes(x.shape, axis)
    return dequantized_exactly(x, spread(scales, x.shape, sizes), spread(zeros, x.shape, sizes))


@op(
    "quantized_decomposed.dequantize_per_channel.default",
    reference=dequantize_per_channel_reference,
    sizes=like_first,
    rows=per_channel_rows,
)
def dequantize_per_channel(
    planner: Planner,
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    axis: int,
    quant_min: int | None,
    quant_max: int | None,
    dtype: Any,
    out_dtype: Any,
    out: Tensor,
) -> None:
    """(x - zero_point) * scale with a scale, and a zero point if there are any, for every index of ``axis``."""
    blocks = _channels(planner, "dequantize_per_channel", x, axis)
    run_affine(planner, "dequantize_integers", x, out, QParams(scales, zero_points, blocks))


def per_token_rows(cut: Cut, x: Tensor, scales: Tensor, zero: Tensor, *rest: Any) -> int | None:
    """Every axis but the last one, cut in all tensors, whose shapes must agree there; the last one, of ``x`` alone."""
    if (only := cut.only(x)) is not None:
        return only if only == x.rank - 1 else None
    axis = cut.together([x, scales, zero])
    tokens = (*x.max_dims[:-1], 1)
    return axis if axis != x.rank - 1 and scales.max_dims == zero.max_dims == tokens else None


def quantize_per_token_reference(x: Array, scales: Array, zeros: Array, low: float, high: float, dtype: Any) -> Array:
    tokens = (*x.shape[:-1], 1)
    return quantized(x, scales.reshape(tokens), zeros.reshape(tokens), low, high, shifted=True)


@op(
    "quantized_decomposed.quantize_per_token.default",
    reference=quantize_per_token_reference,
    promoted=("x",),
    discontinuous=True,
    sizes=like_first,
    rows=per_token_rows,
)
def quantize_per_token(
    planner: Planner,
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    quant_min: int,
    quant_max: int,
    dtype: Any,
    out: Tensor,
) -> None:
    """round(x * (1 / scale) + zero_point) between quant_min and quant_max, with a scale for every row."""
    blocks = _tokens(planner, "quantize_per_token", x)
    run_affine(planner, "quantize_shifted", x, out, QParams(scales, zero_points, blocks), (quant_min, quant_max))


def dequantize_per_token_reference(x: Array, scales: Array, zeros: Array, *_: Any) -> Array:
    tokens = (*x.shape[:-1], 1)
    return dequantized_exactly(x, scales.reshape(tokens), zeros.reshape(tokens))


@op(
    "quantized_decomposed.dequantize_per_token.default",
    reference=dequantize_per_token_reference,
    sizes=like_first,
    rows=per_token_rows,
)
def dequantize_per_token(
    planner: Planner,
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    quant_min: int | None,
    quant_max: int | None,
    dtype: Any,
    output_dtype: Any,
    out: Tensor,
) -> None:
    """(x - zero_point) * scale with a scale for every row."""
    blocks = _tokens(planner, "dequantize_per_token", x)
    run_affine(planner, "dequantize_integers", x, out, QParams(scales, zero_points, blocks))


def _tokens(planner: Planner, name: str, x: Tensor) -> Blocks:
    planner.check(x.rank >= 1, f"{name}: {x} must have a dimension of features")
    return Blocks(x.dims, (*(1,) * (x.rank - 1), max(x.dims[-1], 1)))
