"""What the operators over KV caches compute, in NumPy."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def update_cache(value: Array, cache: Array, start_pos: int) -> Array:
    """Write ``value`` [1, S, H, D] into ``cache`` [1, Cmax, H, D] from row ``start_pos``; answer 0."""
    cache[:, start_pos : start_pos + value.shape[1]] = value
    return np.zeros(1, value.dtype)


def sdpa_with_kv_cache(
    q: Array,
    k: Array,
    v: Array,
    k_cache: Array,
    v_cache: Array,
    input_pos: int,
    seq_len: int = 1,
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = True,
    scale: float | None = None,
) -> Array:
    """Causal attention of ``q`` [1, S, Hq, D] over the caches, after ``k`` and ``v`` joined them."""
    update_cache(k, k_cache, input_pos)
    update_cache(v, v_cache, input_pos)
    _, length, heads, head_dim = q.shape
    group = heads // k.shape[2]
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    out = np.empty_like(q)
    for h in range(heads):
        for s in range(length):
            context = slice(0, input_pos + s + 1)
            scores = k_cache[0, context, h // group] @ q[0, s, h] * scale
            weights = np.exp(scores - scores.max())
            out[0, s, h] = weights / weights.sum() @ v_cache[0, context, h // group]
    return out
