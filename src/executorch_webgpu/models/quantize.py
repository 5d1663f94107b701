"""4-bit weights with one scale for each group of a row: ``q4gsw``, as ``et_vk.linear_q4gsw`` takes them.

A group's weights are w = scale * q with q in -8 … 7. The scale is not max|w| / 8 but the one that the stock
exporter finds (torchao's scale-only HQQ): beginning there, quantize and then solve for the scale with the least
square error, until nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..format.vkgraph import DataType
from .weights import Constant, Floats, Weight

GROUPS = (32, 64, 128)
_ITERATIONS = 20
_SMALLEST_SCALE = np.finfo(np.float32).eps
_ALIGN = 4  # kernels read scales and bias four at a time


@dataclass(frozen=True, eq=False)
class QuantizedMatrix:
    """A matrix [N, K]: ``packed`` uint8 [N, K / 2], ``scales`` float32 [K / group, N padded to 4]."""

    rows: int
    packed: Constant
    scales: Constant
    group: int


def quantize(weight: Weight, group: int) -> QuantizedMatrix:
    """The weight [N, K] in 4 bits. InvalidInputError when its rows are not whole groups.

    Packed weights and scales come of one computation: the scales are kept when the packed weights are read, and
    given away when they are read themselves.
    """
    rows, width = weight.dims
    if width % group != 0:
        raise InvalidInputError(
            f"{weight.name} has rows of {width} weights, which are not whole groups of {group}: choose another group"
        )
    columns = rows + -rows % _ALIGN
    kept: list[Floats] = []

    def packed_pieces() -> Iterator[NDArray[np.uint8]]:
        kept.clear()
        for piece in weight.pieces():
            codes, scales = quantize_rows(piece, group)
            kept.append(scales)
            yield pack(codes)

    def scale_pieces() -> Iterator[Floats]:
        if not kept:
            for _ in packed_pieces():
                pass
        scales = np.zeros((width // group, columns), np.float32)
        np.concatenate(kept, out=scales[:, :rows].T)
        kept.clear()
        yield scales

    return QuantizedMatrix(
        rows,
        Constant(f"{weight.name}.q4", DataType.UINT8, (rows, width // 2), packed_pieces),
        Constant(f"{weight.name}.scales", DataType.FLOAT32, (width // group, columns), scale_pieces),
        group,
    )


def quantize_rows(rows: Floats, group: int) -> tuple[NDArray[np.int8], Floats]:
    """(codes in -8 … 7, int8 [N, K]; scales, float32 [N, K / group]) of float32 [N, K]."""
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


def pack(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two codes a byte, 8 added to each: the even one in the low nibble."""
    shifted = (codes + np.int8(8)).view(np.uint8)
    return shifted[:, 1::2] << np.uint8(4) | shifted[:, ::2]
