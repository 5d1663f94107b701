"""What attention over KV caches accepts; everything else is refused before anything is written."""

from __future__ import annotations

import math

from ...errors import InvalidInputError
from ..plan import Planner
from ..values import IntLike, Tensor
from .call import AttentionCall, round_context
from .mask import check_context_mask


def checked_call(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    input_pos: IntLike,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    out: Tensor,
) -> AttentionCall:
    """The arguments of ``sdpa_with_kv_cache``, checked; states the dims of ``out`` and watches the position.

    Caches in the place of ``k`` and ``v``: their rows are there already.
    """
    _check_shapes(planner, q, k, v, k_cache, v_cache)
    planner.check(are_float32(out), f"sdpa_with_kv_cache gives float32, not {out}")
    if attn_mask is not None:
        check_context_mask(planner, "sdpa_with_kv_cache", attn_mask, q, input_pos)
    planner.resize(out)
    scale = 1 / math.sqrt(q.dims[3]) if scale is None else scale
    return AttentionCall(
        q,
        k,
        v,
        k_cache,
        v_cache,
        input_pos,
        scale,
        out,
        watch_context(planner, "sdpa_with_kv_cache", q, k_cache, input_pos),
        mask=attn_mask,
        causal=bool(is_causal),
    )


def are_float32(*tensors: Tensor) -> bool:
    return all(t.dtype == "float32" for t in tensors)


def _check_shapes(planner: Planner, q: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor) -> None:
    tensors = (q, k, v, k_cache, v_cache)
    floats = [q] if k is k_cache else [q, k, v]
    planner.check(are_float32(*floats), f"sdpa_with_kv_cache takes float32 tensors, not {list(tensors)}")
    planner.check(
        all(t.rank == 4 for t in tensors),
        f"sdpa_with_kv_cache takes [1, S, heads, D] tensors, not {list(tensors)}",
    )
    planner.check(
        all(t.dims[0] == 1 for t in tensors),
        f"sdpa_with_kv_cache needs batch 1, but q is {q} and k_cache {k_cache}",
    )
    _, length, heads, head_dim = q.dims
    kv_heads = k_cache.dims[2]
    same = k_cache.dims == v_cache.dims and k_cache.dims[3] == head_dim
    planner.check(same, f"sdpa_with_kv_cache: caches {k_cache} and {v_cache} must both be [1, Cmax, Hkv, {head_dim}]")
    planner.check(k_cache.dtype == v_cache.dtype, f"sdpa_with_kv_cache: caches {k_cache} and {v_cache} differ in dtype")
    for name, new in [] if k is k_cache else [("k", k), ("v", v)]:
        wanted = (1, length, kv_heads, head_dim)
        planner.check(
            new.dims == wanted,
            f"sdpa_with_kv_cache: {name} is {list(new.dims)}, but must be {list(wanted)} like q",
        )
    planner.check(
        kv_heads > 0 and heads % kv_heads == 0,
        f"sdpa_with_kv_cache: {heads} query heads are not a multiple of {kv_heads} key/value heads",
    )
    planner.check(head_dim % 4 == 0, f"sdpa_with_kv_cache: head size {head_dim} is not a multiple of 4")
    check_cache(planner, "sdpa_with_kv_cache", k_cache)


def check_cache(planner: Planner, name: str, cache: Tensor) -> None:
    known = cache.dtype in ("float32", "float16") or (cache.dtype == "int8" and cache.scales is not None)
    planner.check(
        known, f"{name}: the cache {cache} must be float32 or float16; load_method makes it int8 by kv_cache_dtype"
    )
    whole = cache.dtype == "float32" or cache.dims[3] % 4 == 0
    planner.check(whole, f"{name}: the head size of a {cache.dtype} cache must be a multiple of 4, not {cache.dims[3]}")


def watch_context(planner: Planner, name: str, rows: Tensor, cache: Tensor, input_pos: IntLike, axis: int = 1) -> int:
    """input_pos + S, rounded up; a step that would leave the cache is rejected before anything is written.

    ``axis``: that of the rows in both tensors.
    """
    capacity, most = cache.dims[axis], rows.dims[axis]
    planner.check(most <= capacity, f"{name}: up to {most} new rows cannot fit a cache of {capacity}")

    length = most  # a number, so that all layers watch the same function

    def context(position: int) -> int:
        if position < 0:
            raise InvalidInputError(f"{name}: input_pos is {position}, but it cannot be negative")
        if position + length > capacity:
            raise InvalidInputError(
                f"{name}: input_pos {position} + {length} new tokens = {position + length}, but the cache "
                f"has {capacity} rows; shorten the input or start again"
            )
        return min(capacity, round_context(position + length))

    rounded: int = planner.derive(context, input_pos)
    return rounded
