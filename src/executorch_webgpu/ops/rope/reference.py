"""What the rotary embedding operators compute, in NumPy."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def _rotate_pairs(x: Array, cos: Array, sin: Array) -> Array:
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def apply_rotary_emb(xq: Array, xk: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    """Neighbours (2i, 2i+1) rotate; token s of xq, xk [B, S, heads, D] takes row s of cos, sin [≥ S, D/2]."""
    tokens = xq.shape[1]
    cos, sin = cos[:tokens, None, :], sin[:tokens, None, :]  # the same for every head
    return _rotate_pairs(xq, cos, sin), _rotate_pairs(xk, cos, sin)


def apply_rotary_emb_hf(xq: Array, xk: Array, cos: Array, sin: Array, start_pos: int) -> tuple[Array, Array]:
    """Elements i and i + R/2 of the first R rotate; token s takes row start_pos + s of cos, sin [rows, R].

    With cos and sin [B or 1, S, R], x is [B, heads, S, D], and token s takes row s of its batch.
    """
    if cos.ndim == 3:
        cos, sin = cos[:, None], sin[:, None]
    else:
        rows = slice(start_pos, start_pos + xq.shape[1])
        cos, sin = cos[rows, None, :], sin[rows, None, :]
    rotary_dim = cos.shape[-1]

    def rotate(x: Array) -> Array:
        rotated, passed = x[..., :rotary_dim], x[..., rotary_dim:]
        first, second = np.split(rotated, 2, axis=-1)
        rotated = rotated * cos + np.concatenate([-second, first], axis=-1) * sin
        return np.concatenate([rotated, passed], axis=-1)

    return rotate(xq), rotate(xk)


def apply_rotary_emb_interleaved(x: Array, freqs: Array) -> Array:
    """Neighbours of x [B, N, C] rotate; freqs, seen as [N, C/2, 2], holds (cos, sin)."""
    table = freqs.reshape(x.shape[1], x.shape[2] // 2, 2)
    return _rotate_pairs(x, table[..., 0], table[..., 1])
