"""Floats to codes: the arithmetic of the quantized weight formats, on rows of a matrix.

The scale of a group of symmetric 4-bit weights is not max|w| / 8 but the one that the stock exporter finds (torchao's
scale-only HQQ): beginning there, quantize and then solve for the scale with the least square error, until nothing
changes.

Weights too large for a format give scales that are not finite, never ones that were cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .weights import Floats

_ITERATIONS = 20
_SMALLEST_SCALE = np.finfo(np.float32).eps


def symmetric_4bit(rows: Floats, group: int) -> tuple[NDArray[np.int8], Floats]:
    """(codes in -8 … 7, int8 [N, K]; scales, float32 [N, K / group]) of float32 [N, K]: w = code * scale."""
    weights = rows.reshape(-1, group)
    scales = np.maximum(np.abs(weights).max(axis=1) / np.float32(8), _SMALLEST_SCALE)
    codes = _round(weights, scales)
    # A group whose scale did not change never will again; few groups need more than some rounds.
    active = np.arange(len(weights))
    active_weights, active_codes = weights, codes
    for _ in range(_ITERATIONS):
        old = scales[active]
        new = _best_scales(active_weights, active_codes, old)
        scales[active] = new
        changed = np.flatnonzero(new != old)
        if changed.size == 0:
            break
        active, active_weights = active[changed], active_weights[changed]
        active_codes = _round(active_weights, new[changed])
        codes[active] = active_codes
    return codes.astype(np.int8).reshape(rows.shape), scales.reshape(len(rows), -1)


def _round(weights: Floats, scales: Floats) -> Floats:
    codes = weights / scales[:, None]
    np.rint(codes, out=codes)
    return np.clip(codes, np.float32(-8), np.float32(7), out=codes)


def _best_scales(weights: Floats, codes: Floats, old: Floats) -> Floats:
    """The scale of each group with the least square error for these codes."""
    products = np.einsum("gk,gk->g", weights, codes)
    squares = np.einsum("gk,gk->g", codes, codes)
    best = np.divide(products, squares, out=old.copy(), where=squares > 0)
    return np.maximum(best, _SMALLEST_SCALE)


def asymmetric_4bit(rows: Floats, group: int) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """(codes in 0 … 15, uint8 [N, K]; scales and minimums, float32 [N, K / group]): w = code * scale + minimum.

    Scales and minimums are numbers that float16 can hold.
    """
    weights = rows.reshape(-1, group)
    minimum = _to_half(weights.min(axis=1))
    scales = _to_half((weights.max(axis=1) - minimum) / np.float32(15))
    steps = np.divide(
        weights - minimum[:, None], scales[:, None], out=np.zeros_like(weights), where=scales[:, None] > 0
    )
    codes = np.clip(np.rint(steps), 0, 15).astype(np.uint8)
    return codes.reshape(rows.shape), scales.reshape(len(rows), -1), minimum.reshape(len(rows), -1)


def symmetric_8bit(rows: Floats, group: int, *, half: bool) -> tuple[NDArray[np.int8], Floats]:
    """(codes in -127 … 127, int8 [N, K]; scales, float32 [N, K / group]): w = code * scale.

    ``half``: scales are numbers that float16 can hold.
    """
    weights = rows.reshape(-1, group)
    scales = np.abs(weights).max(axis=1) / np.float32(127)
    if half:
        scales = _to_half(scales)
    codes = np.clip(np.rint(_quotient(weights, scales)), -127, 127).astype(np.int8)
    return codes.reshape(rows.shape), scales.reshape(len(rows), -1)


def _quotient(weights: Floats, scales: Floats) -> Floats:
    """weights / scales of each group, 0 where the scale is 0."""
    return np.divide(weights, scales[:, None], out=np.zeros_like(weights), where=scales[:, None] > 0)


def _to_half(values: Floats) -> Floats:
    """The nearest numbers that float16 can hold, infinite beyond its range, which callers must refuse."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def pack(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two codes of 0 … 15 a byte: the even one in the low nibble."""
    return codes[:, 1::2] << np.uint8(4) | codes[:, ::2]
