"""Attention: over KV caches that live in the graph, and over whole tensors.

``sdpa_with_kv_cache`` writes the step's keys and values into the caches and attends over all rows written so far.
``rope_sdpa_with_kv_cache``, what fusion makes of three operators, rotates queries and keys first. Both have the routes
of routes.py, a kernel in a folder of its own for each.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import wraps
from typing import Any

from ..indexing.in_place import put_in_place
from ..indexing.store_rows.plan import store_rows
from ..plan import Planner
from ..registry import op
from ..rope import check_halves, check_pairs
from ..rows import Cut, broadcast
from ..shapes import ceil_div
from ..sizes import like_first
from ..values import IntLike, Tensor
from . import paged, quantized, reference
from .cache_update.plan import update_caches
from .call import AttentionCall, Rotation
from .checks import are_float32, check_cache, checked_call, watch_context
from .flash import plan as flash_plan
from .mask import check_mask, mask_strides
from .rotate_and_store import plan as rotate_and_store_plan
from .routes import attend

__all__ = ["paged", "quantized"]


# Operators over caches state no rows: a token sees those before it, and lies where their number says.
@op(
    "llama.sdpa_with_kv_cache.default",
    "sdpa_with_kv_cache.default",
    reference=reference.sdpa_with_kv_cache,
    sizes=like_first,
    caches={"k_cache": "k", "v_cache": "v"},
    position="input_pos",
)
def sdpa_with_kv_cache(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    input_pos: IntLike,
    seq_len: IntLike,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    out: Tensor,
) -> None:
    """Write k, v [1, S, Hkv, D] into the caches [1, Cmax, Hkv, D] at row ``input_pos``, then attend with q.

    q and out are [1, S, Hq, D]; query row s sees the cache rows 0 … input_pos + s. float32, but caches may be
    float16, or int8 with scales (see ``Tensor``). ``scale`` is 1/sqrt(D) by default; ``seq_len`` is ignored:
    exports write 1 whatever S is. InvalidInputError when the new rows would lie outside the caches.

    Without ``is_causal`` every row sees the whole context. ``attn_mask``, float32, is added to the scaled scores in
    either case; it is broadcast from the right to [1, Hq, S, context], and may have columns past the context. Where it
    has columns for all Cmax rows and there is no ``is_causal``, all of them are seen, as in ExecuTorch. A
    row whose every column has -inf becomes NaN, as it does in PyTorch. Both are for D up to 256.
    """
    planner.check(not dropout_p, f"sdpa_with_kv_cache has dropout {dropout_p}; export the model in eval mode")
    call = checked_call(planner, q, k, v, k_cache, v_cache, input_pos, attn_mask, is_causal, scale, out)
    update_caches(planner, [(k, k_cache), (v, v_cache)], input_pos)
    attend(planner, call)


@op("llama.custom_sdpa.default", reference=reference.custom_sdpa, sizes=like_first)
def custom_sdpa(
    planner: Planner,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    start_pos: IntLike,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    out: Tensor,
) -> None:
    """``sdpa_with_kv_cache`` over caches that hold the step's rows already, as ``update_cache`` has written them."""
    planner.check(not dropout_p, f"custom_sdpa has dropout {dropout_p}; export the model in eval mode")
    rows = (k_cache, v_cache)
    attend(planner, checked_call(planner, q, *rows, *rows, start_pos, attn_mask, is_causal, scale, out))


def rotated_call(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    halves: bool,
    start_pos: IntLike,
    k_cache: Tensor,
    v_cache: Tensor,
    input_pos: IntLike,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    outs: list[Tensor],
) -> AttentionCall:
    """``apply_rotary_emb`` of q and k, or ``_hf`` with ``halves``, then ``sdpa_with_kv_cache``.

    Token s takes row ``start_pos`` + s of cos and sin: [rows, D/2], or [rows, R] with ``halves``. ``outs`` are the
    rotated q and the result of attention, both [1, S, Hq, D]. All else is as in those operators.
    """
    name = "rope_sdpa_with_kv_cache"
    planner.check(len(outs) == 2, f"{name} has two results, not {len(outs)}")
    rotated_q, out = outs
    call = checked_call(planner, q, k, v, k_cache, v_cache, input_pos, attn_mask, is_causal, scale, out)
    kind, check = ("halves", check_halves) if halves else ("pairs", check_pairs)
    half = check(planner, name, q, k, cos, sin, start_pos, [rotated_q, out])
    planner.resize(rotated_q)
    return replace(call, rotation=Rotation(cos, sin, start_pos, kind, half, rotated_q))


@op(
    "et_webgpu.rope_sdpa_with_kv_cache.default",
    reference=reference.rope_sdpa_with_kv_cache,
    sizes=lambda s, q, *rest: [s.of(q), s.of(q)],
    reads_rows_of=("cos", "sin"),
    caches={"k_cache": "k", "v_cache": "v"},
    position="input_pos",
)
@wraps(rotated_call, assigned=("__doc__", "__annotations__"))
def rope_sdpa_with_kv_cache(planner: Planner, *arguments: Any) -> None:
    call = rotated_call(planner, *arguments)
    rotate_and_store_plan.prepare(planner, call)
    attend(planner, call)


@op(
    "llama.update_cache.default",
    "update_cache.default",
    reference=reference.update_cache,
    sizes=lambda s, *args: args[-1].max_dims,
    caches={"cache": "value"},
    position="start_pos",
)
def update_cache(planner: Planner, value: Tensor, cache: Tensor, start_pos: IntLike, out: Tensor) -> None:
    """Write ``value`` [B, S, H, D] into ``cache`` [B, Cmax, H, D] from row ``start_pos``.

    Both have one dtype, any. With B 1 and float32 values, a cache that ``load_method`` stores in fewer bits is float16,
    or int8 with scales, and D a multiple of 4. ``out`` is a one-element stand-in that exports need to order the write;
    it becomes 0. InvalidInputError when the rows would lie outside the cache.
    """
    fits = value.rank == 4 and cache.rank == 4 and value.dims[2:] == cache.dims[2:] and value.dims[0] == cache.dims[0]
    planner.check(fits, f"update_cache cannot write {value} into {cache}: batch, heads and head size must be the same")
    watch_context(planner, "update_cache", value, cache, start_pos)
    if value.dtype == cache.dtype and cache.scales is None:
        store_rows(planner, "update_cache", value, cache, start_pos)
    else:
        planner.check(are_float32(value), f"update_cache takes values of the dtype of {cache}, not {value}")
        planner.check(value.dims[0] == 1, f"update_cache needs batch 1 for {cache}, not {value}")
        check_cache(planner, "update_cache", cache)
        update_caches(planner, [(value, cache)], start_pos)
    _clear(planner, out)


@op(
    "llama.update_cache_with_indices.default",
    reference=reference.update_cache_with_indices,
    sizes=lambda s, *args: args[-1].max_dims,
    mutates=("cache",),
)
def update_cache_with_indices(
    planner: Planner, value: Tensor, cache: Tensor, start_pos: IntLike, indices: Tensor, out: Tensor
) -> None:
    """Write row s of ``value`` [1, S, H, D] into row ``indices[0, s]`` of ``cache`` [1, Cmax, H, D] of the same dtype.

    Of rows with one index the last stays. ``start_pos`` is ignored; ``out`` is a stand-in, as in ``update_cache``.
    An index that the host sees is refused if the cache has no such row; one that only the device knows is clamped.
    """
    name = "update_cache_with_indices"
    fits = value.rank == 4 and cache.rank == 4 and value.dims[2:] == cache.dims[2:] and value.dtype == cache.dtype
    planner.check(fits, f"{name} cannot write {value} into {cache}: heads, head size and dtype must be the same")
    planner.check(value.dims[0] == cache.dims[0] == 1, f"{name} needs batch 1, not {value} into {cache}")
    planner.check(indices.dims == value.dims[:2], f"{name}: the indices {indices} must be [1, {value.dims[1]}]")
    put_in_place(planner, name, cache, [None, indices], value, wraps=False)
    _clear(planner, out)


def _clear(planner: Planner, out: Tensor) -> None:
    planner.resize(out)
    quads = ceil_div(out.nbytes, 16)
    planner.dispatch("fill/fill", planner.grid_1d(quads, 64), {"out": out}, {"quads": quads, "word": 0})


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
    planner: Planner, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, scale: float | None, out: Tensor
) -> None:
    """softmax(scale * q kᵀ + attn_mask) v for q, out [B, H, S, D] and k, v [B, H or 1, Skv, D]; all float32.

    D is a multiple of 4 up to 256; the leading dims B and H may also be missing. ``attn_mask`` is broadcast from the
    right to [B, H, S, Skv]. ``scale`` is 1/sqrt(D) by default. A row whose every column has a mask of -inf is NaN,
    as it is in PyTorch.
    """
    tensors = [q, k, v, out, *([attn_mask] if attn_mask else [])]
    planner.check(all(t.dtype == "float32" for t in tensors), f"et_vk.sdpa takes float32 tensors, not {tensors}")
    planner.check(2 <= q.rank <= 4 and k.rank == q.rank, f"et_vk.sdpa takes [B, H, S, D] tensors, not {q} and {k}")
    planner.check(k.dims == v.dims, f"et_vk.sdpa needs keys and values of the same dims, not {k} and {v}")
    batch, heads, tokens, head_dim = (1,) * (4 - q.rank) + q.dims
    kv_batch, kv_heads, columns, kv_head_dim = (1,) * (4 - k.rank) + k.dims
    planner.check(
        kv_batch == batch and kv_heads in (1, heads) and kv_head_dim == head_dim,
        f"et_vk.sdpa: keys {k} must have the batch, head size and heads (or one head) of q {q}",
    )
    planner.check(
        head_dim % 4 == 0 and head_dim // 4 <= flash_plan.MAX_VECTORS,
        f"et_vk.sdpa: head size {head_dim} is not a multiple of 4 up to {4 * flash_plan.MAX_VECTORS}",
    )
    if attn_mask is not None:
        check_mask(planner, "et_vk.sdpa", attn_mask, (batch, heads, tokens, columns))
    planner.resize(out)
    vectors = head_dim // 4
    flash_plan.stream(
        planner,
        flash_plan.Streams(
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


def tokens_first_rows(
    cut: Cut, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, scale: float | None, out: Tensor
) -> int | None:
    """Those of ``dense_rows``, but for heads of which several share keys."""
    turned = (0, 2, 1, 3)

    def heads_first(t: Tensor) -> Tensor:
        return replace(t, max_dims=tuple(t.max_dims[axis] for axis in turned))

    own = {t.id for t in (q, k, v)}
    axes = {id: turned[axis] if id in own else axis for id, axis in cut.axes.items()}
    axis = dense_rows(
        replace(cut, axes=axes), heads_first(q), heads_first(k), heads_first(v), attn_mask, scale, heads_first(out)
    )
    shared = k.max_dims[2] not in (1, q.max_dims[2])
    return None if axis is None or (axis == 1 and shared) else turned[axis]


@op(
    "et_webgpu.sdpa_tokens_first.default",
    reference=reference.sdpa_tokens_first,
    sizes=like_first,
    rows=tokens_first_rows,
)
def sdpa_tokens_first(
    planner: Planner, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, scale: float | None, out: Tensor
) -> None:
    """``et_vk.sdpa`` of tensors as projections give them: q, out [B, S, Hq, D] and k, v [B, Skv, Hkv, D]; all float32.

    Hq is a multiple of Hkv: queries share keys in groups of neighbours. D is a multiple of 4 up to 256. ``attn_mask``
    is broadcast from the right to [B, Hq, S, Skv]. A row whose every column has a mask of -inf is NaN.
    """
    name = "sdpa_tokens_first"
    tensors = [q, k, v, out, *([attn_mask] if attn_mask else [])]
    planner.check(all(t.dtype == "float32" for t in tensors), f"{name} takes float32 tensors, not {tensors}")
    planner.check(q.rank == k.rank == 4, f"{name} takes [B, S, heads, D] tensors, not {q} and {k}")
    planner.check(k.dims == v.dims, f"{name} needs keys and values of the same dims, not {k} and {v}")
    (batch, tokens, heads, head_dim), (kv_batch, columns, kv_heads, kv_head_dim) = q.dims, k.dims
    planner.check(
        kv_batch == batch and kv_head_dim == head_dim and kv_heads > 0 and heads % kv_heads == 0,
        f"{name}: keys {k} must have the batch and head size of q {q}, and heads that divide its heads",
    )
    planner.check(
        head_dim % 4 == 0 and head_dim // 4 <= flash_plan.MAX_VECTORS,
        f"{name}: head size {head_dim} is not a multiple of 4 up to {4 * flash_plan.MAX_VECTORS}",
    )
    if attn_mask is not None:
        check_mask(planner, name, attn_mask, (batch, heads, tokens, columns))
    planner.resize(out)
    vectors = head_dim // 4
    flash_plan.stream(
        planner,
        flash_plan.Streams(
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
            token_stride=heads * vectors,
            head_stride=vectors,
            column_stride=kv_heads * vectors,
            kv_head_stride=vectors,
            causal=False,
            mask=attn_mask,
            heads=heads,
            mask_strides=mask_strides(attn_mask),
            batch_strides=(tokens * heads * vectors, columns * kv_heads * vectors),
        ),
    )
