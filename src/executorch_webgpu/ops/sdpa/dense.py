"""Attention over whole tensors of keys and values, as encoders and cross-attention have it."""

from __future__ import annotations

import math

from ..plan import Planner
from ..registry import op
from ..rows import Cut, broadcast
from ..sizes import like_first
from ..values import Tensor
from . import flash, reference
from .mask import check_mask, mask_strides


def dense_rows(
    cut: Cut, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, scale: float | None, out: Tensor
) -> int | None:
    """Batches and heads of all tensors, and the rows of queries, each with those that a mask has of them."""
    queries = [q] if attn_mask is None else [q, attn_mask]
    if (tokens := broadcast(cut, *queries, out)) == q.rank - 2:
        return tokens
    axis, cut_keys = broadcast(cut, *queries, k, v, out), [t.id in cut.axes for t in (k, v)]
    alike = all(cut_keys) or (not any(cut_keys) and axis == q.rank - 3)  # one head of keys serves all of queries
    return axis if axis is not None and axis < q.rank - 2 and alike else None


@op("et_vk.sdpa.default", reference=reference.sdpa, sizes=like_first, rows=dense_rows)
def sdpa(
    g: Planner, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, scale: float | None, out: Tensor
) -> None:
    """softmax(scale * q kᵀ + attn_mask) v for q, out [B, H, S, D] and k, v [B, H or 1, Skv, D]; all float32.

    D is a multiple of 4 up to 256; the leading dims B and H may also be missing. ``attn_mask`` is broadcast from the
    right to [B, H, S, Skv]. ``scale`` is 1/sqrt(D) by default. A row whose every column has a mask of -inf is NaN,
    as it is in PyTorch.
    """
    tensors = [q, k, v, out, *([attn_mask] if attn_mask else [])]
    g.check(all(t.dtype == "float32" for t in tensors), f"et_vk.sdpa takes float32 tensors, not {tensors}")
    g.check(2 <= q.rank <= 4 and k.rank == q.rank, f"et_vk.sdpa takes [B, H, S, D] tensors, not {q} and {k}")
    g.check(k.dims == v.dims, f"et_vk.sdpa needs keys and values of the same dims, not {k} and {v}")
    batch, heads, tokens, head_dim = (1,) * (4 - q.rank) + q.dims
    kv_batch, kv_heads, columns, kv_head_dim = (1,) * (4 - k.rank) + k.dims
    g.check(
        kv_batch == batch and kv_heads in (1, heads) and kv_head_dim == head_dim,
        f"et_vk.sdpa: keys {k} must have the batch, head size and heads (or one head) of q {q}",
    )
    g.check(
        head_dim % 4 == 0 and head_dim // 4 <= flash.MAX_VECTORS,
        f"et_vk.sdpa: head size {head_dim} is not a multiple of 4 up to {4 * flash.MAX_VECTORS}",
    )
    if attn_mask is not None:
        check_mask(g, "et_vk.sdpa", attn_mask, (batch, heads, tokens, columns))
    g.resize(out, q.dims)
    vectors = head_dim // 4
    flash.stream(
        g,
        flash.Streams(
            q,
            k,
            v,
            out,
            input_pos=0,
            new_columns=columns,
            tokens=tokens,
            group=heads // kv_heads,
            kv_heads=batch * kv_heads,
            vectors=vectors,
            scale=1 / math.sqrt(head_dim) if scale is None else scale,
            token_stride=vectors,
            head_stride=tokens * vectors,
            column_stride=vectors,
            kv_head_stride=columns * vectors,
            causal=False,
            mask=attn_mask,
            heads=heads,
            mask_strides=mask_strides(attn_mask),
        ),
    )
