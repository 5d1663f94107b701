"""What convolutions mean, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..elementwise.bounds import clamp_reference
from ..norm.channels import batch_norm_reference
from .call import Window, window_of

Array = np.ndarray


def convolution_reference(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Array:
    """A product of matrices for each element of the kernel: [N, C, ...] -> [N, O, ...]."""
    window = window_of(weight.shape, stride, padding, dilation, transposed, output_padding)
    sizes = tuple(window.output(size, axis) for axis, size in enumerate(x.shape[2:]))
    out = (_spread if transposed else _gather)(x, weight, window, groups, sizes)
    return out if bias is None else out + bias.reshape(-1, *[1] * len(sizes))


def conv_with_clamp_reference(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_min: float | None,
    output_max: float | None,
) -> Array:
    """``convolution_reference``, bounded; the upper bound wins a crossing."""
    out = convolution_reference(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
    return clamp_reference(out, output_min, output_max)


def fused_convolution_reference(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    norm: Sequence[Array | None],
    eps: float,
    output_min: float | None,
    output_max: float | None,
) -> Array:
    """``convolution_reference``, normalized by channel, and bounded."""
    out = convolution_reference(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
    weight_of_norm, bias_of_norm, mean, variance = norm
    assert mean is not None and variance is not None
    out, _, _ = batch_norm_reference(out, weight_of_norm, bias_of_norm, mean, variance, 0.0, eps)
    return clamp_reference(out, output_min, output_max)


def _gather(x: Array, weight: Array, window: Window, groups: int, sizes: tuple[int, ...]) -> Array:
    batch, channels = x.shape[:2]
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in window.padding)])
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    out = np.zeros((batch, groups, by_group.shape[1], math.prod(sizes)), np.result_type(x, weight))
    for tap in np.ndindex(window.kernel):
        under = padded[_under(window, tap, sizes)].reshape(batch, groups, channels // groups, out.shape[-1])
        out += by_group[_everywhere(tap)] @ under
    return out.reshape(batch, len(weight), *sizes)


def _spread(x: Array, weight: Array, window: Window, groups: int, sizes: tuple[int, ...]) -> Array:
    (batch, channels), places = x.shape[:2], x.shape[2:]
    whole = [size + 2 * p for size, p in zip(sizes, window.padding, strict=True)]
    out = np.zeros((batch, weight.shape[1] * groups, *whole), np.result_type(x, weight))
    columns = x.reshape(batch, groups, channels // groups, math.prod(places))
    by_group = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    for tap in np.ndindex(window.kernel):
        product = by_group[_everywhere(tap)] @ columns
        out[_under(window, tap, places)] += product.reshape(batch, out.shape[1], *places)
    kept: list[Any] = [slice(p, p + size) for p, size in zip(window.padding, sizes, strict=True)]
    return out[(..., *kept)]


def _everywhere(tap: Sequence[int]) -> tuple[Any, ...]:
    """An element of the kernel, of all channels."""
    return (..., *tap)


def _under(window: Window, tap: Sequence[int], sizes: Sequence[int]) -> tuple[Any, ...]:
    """What lies under an element of the kernel while it takes its ``sizes`` places, of all channels."""
    starts = [t * d for t, d in zip(tap, window.dilation, strict=True)]
    moves = zip(starts, window.stride, sizes, strict=True)
    return (..., *(slice(start, start + stride * (size - 1) + 1, stride) for start, stride, size in moves))
