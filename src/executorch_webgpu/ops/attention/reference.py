"""What the operators over KV caches compute, in NumPy."""

from __future__ import annotations

import math

import numpy as np

from ..rope import reference as rope

Array = np.ndarray

HALF_MAX = float(np.finfo(np.float16).max)


def as_stored(rows: Array, dtype: str) -> Array:
    """What a cache of ``dtype`` makes of ``rows`` [..., D]: float16 rounded, int8 in steps of max|row| / 127."""
    if dtype == "float16":
        return rows.clip(-HALF_MAX, HALF_MAX).astype(np.float16).astype(rows.dtype)
    if dtype == "int8":
        scales = int8_scales(rows)
        return np.rint(np.divide(rows, scales, out=np.zeros_like(rows), where=scales > 0)) * scales
    return rows


def int8_scales(rows: Array) -> Array:
    """One step for each of ``rows`` [..., D]: [..., 1]."""
    largest: Array = np.abs(rows).max(axis=-1, keepdims=True)
    return largest / 127


def update_cache(value: Array, cache: Array, start_pos: int, *, stored_as: str = "float32") -> Array:
    """Write ``value`` [1, S, H, D] into ``cache`` [1, Cmax, H, D] from row ``start_pos``; return 0.

    ``stored_as``: the dtype of the cache on the device, which rounds like that.
    """
    cache[:, start_pos : start_pos + value.shape[1]] = as_stored(value, stored_as)
    return np.zeros(1, value.dtype)


def update_cache_with_indices(value: Array, cache: Array, start_pos: int, indices: Array) -> Array:
    """Write row s of ``value`` [B, S, H, D] into row ``indices[b, s]`` of ``cache``; return 0."""
    if ((indices < 0) | (indices >= cache.shape[1])).any():
        raise IndexError(f"the cache has rows 0 to {cache.shape[1] - 1}, not {indices.min()} to {indices.max()}")
    for rows, target, places in zip(value, cache, indices, strict=True):
        for row, place in zip(rows, places, strict=True):
            target[place] = row
    return np.zeros(1, value.dtype)


def sdpa_with_kv_cache(
    q: Array,
    k: Array,
    v: Array,
    k_cache: Array,
    v_cache: Array,
    input_pos: int,
    seq_len: int = 1,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = True,
    scale: float | None = None,
    *,
    stored_as: str = "float32",
) -> Array:
    """Attention of ``q`` [1, S, Hq, D] over the caches, after ``k`` and ``v`` joined them.

    ``attn_mask`` is broadcast to [1, Hq, S, context]; see ``custom_sdpa``.
    """
    update_cache(k, k_cache, input_pos, stored_as=stored_as)
    update_cache(v, v_cache, input_pos, stored_as=stored_as)
    return custom_sdpa(q, k_cache, v_cache, input_pos, attn_mask, dropout_p, is_causal, scale)


def custom_sdpa(
    q: Array,
    k_cache: Array,
    v_cache: Array,
    start_pos: int,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = True,
    scale: float | None = None,
) -> Array:
    """Attention of ``q`` [B, S, Hq, D] over caches that hold the rows up to ``start_pos`` + S.

    Where a mask has columns for all rows of the caches and excludes ``is_causal``, all rows are seen.
    """
    batches, length, heads, head_dim = q.shape
    group, capacity = heads // k_cache.shape[2], k_cache.shape[1]
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    whole = attn_mask is not None and not is_causal and attn_mask.shape[-1:] == (capacity,)
    columns = capacity if whole else start_pos + length
    mask = np.zeros(1) if attn_mask is None else attn_mask[..., :columns]
    mask = np.broadcast_to(mask, (batches, heads, length, columns))
    out = np.empty_like(q)
    for b, h, s in np.ndindex(batches, heads, length):
        context = slice(0, start_pos + s + 1 if is_causal else columns)
        scores = k_cache[b, context, h // group] @ q[b, s, h] * scale + mask[b, h, s, context]
        out[b, s, h] = _softmax(scores) @ v_cache[b, context, h // group]
    return out


def custom_quantized_sdpa(
    q: Array,
    k: Array,
    v: Array,
    start_pos: int,
    attn_mask: Array | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    q_zero_points: Array | None,
    q_scales: Array | None,
    k_zero_points: Array | None,
    k_scales: Array | None,
    v_zero_points: Array | None,
    v_scales: Array | None,
    is_seq_at_dim_2: bool,
) -> Array:
    """The same of codes, with a scale and a zero point for each row and head."""

    def floats(x: Array, zeros: Array | None, scales: Array | None) -> Array:
        wide = x.astype(np.float64)
        if x.dtype.kind == "i" and zeros is not None and scales is not None:  # floats stand for themselves
            wide = (wide - zeros) * scales
        return wide.swapaxes(1, 2) if is_seq_at_dim_2 else wide

    q, k, v = floats(q, q_zero_points, q_scales), floats(k, k_zero_points, k_scales), floats(v, v_zero_points, v_scales)
    out = custom_sdpa(q, k, v, start_pos, attn_mask, dropout_p, is_causal, scale)
    return out.swapaxes(1, 2) if is_seq_at_dim_2 else out


def rope_sdpa_with_kv_cache(
    q: Array,
    k: Array,
    v: Array,
    cos: Array,
    sin: Array,
    halves: bool,
    start_pos: int,
    k_cache: Array,
    v_cache: Array,
    input_pos: int,
    attn_mask: Array | None,
    is_causal: bool,
    scale: float | None,
    *,
    stored_as: str = "float32",
) -> tuple[Array, Array]:
    """The rotated q, and attention over the caches once the rotated k and v have joined them."""
    if halves:
        q, k = rope.apply_rotary_emb_hf(q, k, cos, sin, start_pos)
    else:
        q, k = rope.apply_rotary_emb(q, k, cos[start_pos:], sin[start_pos:])
    out = sdpa_with_kv_cache(
        q, k, v, k_cache, v_cache, input_pos, 1, attn_mask, 0.0, is_causal, scale, stored_as=stored_as
    )
    return q, out


def sdpa(q: Array, k: Array, v: Array, attn_mask: Array | None = None, scale: float | None = None) -> Array:
    """softmax(scale * q kᵀ + attn_mask) v over the last two dimensions; the others are broadcast."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = q @ np.swapaxes(k, -1, -2) * scale
    return np.asarray(_softmax(scores if attn_mask is None else scores + attn_mask) @ v)


def sdpa_tokens_first(
    q: Array, k: Array, v: Array, attn_mask: Array | None = None, scale: float | None = None
) -> Array:
    """The same with tokens before heads, of which several queries may share those of keys."""
    group = q.shape[2] // k.shape[2]
    q, k, v = (np.swapaxes(x, 1, 2) for x in (q, np.repeat(k, group, axis=2), np.repeat(v, group, axis=2)))
    return np.swapaxes(sdpa(q, k, v, attn_mask, scale), 1, 2)


def _softmax(scores: Array) -> Array:
    """Over the last dimension; NaN where all are -inf."""
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))
