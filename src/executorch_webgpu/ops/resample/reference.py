"""Resampling in NumPy: matrices [out, in] of weights, one for each dimension."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def nearest_index(out: int, size: int, scale: float, *, exact: bool) -> Array:
    """Which element is the nearest one to each of ``out``; in float32, as torch and the kernel compute it."""
    place = (np.arange(out, dtype=np.float32) + np.float32(0.5 if exact else 0)) * np.float32(scale)
    return np.minimum(np.floor(place).astype(np.int64), size - 1)


def take_nearest(x: Array, indices: Sequence[Array]) -> Array:
    """Elements of ``x`` at these indices of its last dimensions."""
    for axis, index in enumerate(indices, x.ndim - len(indices)):
        x = np.take(x, index, axis=axis)
    return x


def _places(out: int, scale: float, *, corners: bool) -> Array:
    o = np.arange(out, dtype=np.float64)
    return o * scale if corners else (o + 0.5) * scale - 0.5


def cubic_weights(t: Array) -> list[Array]:
    """Weights of the four neighbours of a place that lies ``t`` behind the second one."""

    def inner(d: Array) -> Array:
        return (1.25 * d - 2.25) * d * d + 1

    def outer(d: Array) -> Array:
        return ((-0.75 * d + 3.75) * d - 6) * d + 3

    return [outer(t + 1), inner(t), inner(1 - t), outer(2 - t)]


def linear_matrix(out: int, size: int, scale: float, *, corners: bool) -> Array:
    """Between two elements."""
    place = np.maximum(_places(out, scale, corners=corners), 0)
    at = np.minimum(place.astype(np.int64), size - 1)
    fraction = np.clip(place - at, 0, 1)
    return _matrix(size, [at, np.minimum(at + 1, size - 1)], [1 - fraction, fraction])


def cubic_matrix(out: int, size: int, scale: float, *, corners: bool) -> Array:
    """Between four elements; those beyond the edges are the ones at the edges."""
    place = _places(out, scale, corners=corners)
    at = np.minimum(np.floor(place).astype(np.int64), size - 1)
    weights = cubic_weights(np.clip(place - at, 0, 1))
    return _matrix(size, [np.clip(at + t, 0, size - 1) for t in (-1, 0, 1, 2)], weights)


def _matrix(size: int, indices: Sequence[Array], weights: Sequence[Array]) -> Array:
    result = np.zeros((len(indices[0]), size))
    for index, weight in zip(indices, weights, strict=True):
        np.add.at(result, (np.arange(len(index)), index), weight)
    return result


def antialias_matrix(out: int, size: int, scale: float, *, cubic: bool) -> Array:
    """Averages that are as wide as the elements of the result."""
    wide, reach = max(scale, 1.0), 2 if cubic else 1
    center = (np.arange(out)[:, None] + 0.5) * scale
    i = np.arange(size)
    distance = np.abs((i - center + 0.5) / wide)
    if cubic:
        inner = (1.5 * distance - 2.5) * distance**2 + 1
        outer = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = np.where(distance < 1, inner, np.where(distance < 2, outer, 0))
    else:
        weights = np.maximum(1 - distance, 0)
    start, end = (center - reach * wide + 0.5).astype(np.int64), (center + reach * wide + 0.5).astype(np.int64)
    weights = np.where((i >= np.maximum(start, 0)) & (i < end), weights, 0)
    total = weights.sum(axis=1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


def apply_matrices(x: Array, matrices: Sequence[Array]) -> Array:
    """``x`` with every matrix applied to one of its last dimensions; weights of 0 take nothing, be it NaN."""
    for axis, matrix in enumerate(matrices, x.ndim - len(matrices)):
        rows = np.moveaxis(x, axis, -1)
        used = [np.flatnonzero(weights) for weights in matrix]
        columns = [(rows[..., u] * m[u]).sum(axis=-1) for u, m in zip(used, matrix, strict=True)]
        x = np.moveaxis(np.stack(columns, axis=-1), -1, axis) if columns else x
    return x
