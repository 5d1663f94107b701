"""Attention over KV caches that live in the graph.

``sdpa_with_kv_cache`` writes the step's keys and values into the caches and attends over all rows written so
far. It has one plan and several routes, tried in the order of ``_ROUTES``; each one is a predicate, the
pipelines that it wants ready, and the dispatches. Every route reads ``input_pos`` from its live uniform. What
a plan fixes is the number of workgroups, for the context length rounded up, so decode is planned again only
once in ``CONTEXT_STEP`` tokens, and less often at long contexts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ...errors import InvalidInputError
from ..plan import Planner
from ..registry import op
from ..sizes import like_first
from ..values import IntLike, Tensor
from . import (
    decode,
    flash,
    flash_decode,
    flash_decode_subgroups,
    flash_matrix,
    materialized,
    reference,
)
from .call import CONTEXT_STEP, AttentionCall, Rotation, round_context
from .dense import sdpa
from .mask import check_context_mask

__all__ = [
    "CONTEXT_STEP",
    "AttentionCall",
    "Rotation",
    "attend",
    "checked_call",
    "sdpa",
    "sdpa_with_kv_cache",
    "update_cache",
    "update_caches",
]


Rotate = Callable[[Planner, AttentionCall], AttentionCall]  # the call without its rotation


@dataclass(frozen=True)
class Route:
    """One way to compute attention: whether it can run a call, what to compile at load, and how it runs."""

    fits: Callable[[Planner, AttentionCall], bool]
    prepare: Callable[[Planner, AttentionCall], None]
    run: Callable[[Planner, AttentionCall], None]
    any_mask: bool = False  # takes a mask, and calls that are not causal
    rotates: Callable[[Planner, AttentionCall], bool] = lambda g, call: False  # does the ``rotation`` itself

    def takes(self, call: AttentionCall) -> bool:
        """Whether the route knows what ``call`` is about; ``fits`` then says whether it can run it."""
        return self.any_mask or (call.mask is None and call.causal)


_ROUTES = {
    "flash_decode_subgroups": Route(
        flash_decode_subgroups.fits,
        flash_decode_subgroups.prepare,
        flash_decode_subgroups.run,
        rotates=flash_decode_subgroups.rotates,
    ),
    "flash_decode": Route(flash_decode.fits, flash_decode.prepare, flash_decode.run),
    "decode": Route(decode.fits, decode.prepare, decode.run),
    "flash_matrix": Route(
        flash_matrix.fits, partial(flash_matrix.prepare, exact=True), partial(flash_matrix.run, exact=True)
    ),
    "flash_matrix_f16": Route(
        flash_matrix.fits, partial(flash_matrix.prepare, exact=False), partial(flash_matrix.run, exact=False)
    ),
    "flash": Route(flash.fits, flash.prepare, flash.run, any_mask=True),
    "materialized": Route(materialized.fits, materialized.prepare, materialized.run),
}

# What rounds more than the others, and comes before them where a load allows that.
_ROUNDED = ("flash_matrix_f16",)

# A software adapter has no workgroup memory that is faster than other, and small subgroups that take turns.
_CPU_FIRST = ("decode", "flash_decode")


@op(
    "llama.sdpa_with_kv_cache.default",
    "sdpa_with_kv_cache.default",
    reference=reference.sdpa_with_kv_cache,
    sizes=like_first,
    # No rows: a token sees those before it in the caches, and where it is written depends on how many there are.
    caches={"k_cache": "k", "v_cache": "v"},
    position="input_pos",
)
def sdpa_with_kv_cache(
    g: Planner,
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
    either case; it is broadcast from the right to [1, Hq, S, context], and may have columns behind the context. A
    row whose every column has -inf becomes NaN, as it does in PyTorch. Both are for D up to 256.
    """
    g.check(not dropout_p, f"sdpa_with_kv_cache has dropout {dropout_p}; export the model in eval mode")
    call = checked_call(g, q, k, v, k_cache, v_cache, input_pos, attn_mask, is_causal, scale, out)
    update_caches(g, [(k, k_cache), (v, v_cache)], input_pos)
    attend(g, call)


def checked_call(
    g: Planner,
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
    """The arguments of ``sdpa_with_kv_cache``, checked; states the dims of ``out`` and watches the position."""
    _check_shapes(g, q, k, v, k_cache, v_cache)
    g.check(_are_float32(out), f"sdpa_with_kv_cache gives float32, not {out}")
    if attn_mask is not None:
        check_context_mask(g, "sdpa_with_kv_cache", attn_mask, q, input_pos)
    g.resize(out, q.dims)
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
        _watch_context(g, "sdpa_with_kv_cache", q, k_cache, input_pos),
        mask=attn_mask,
        causal=bool(is_causal),
    )


def attend(g: Planner, call: AttentionCall, rotate: Rotate | None = None) -> None:
    """Dispatch attention by the first route that can run it; the caches hold this step's rows by then.

    A call with a ``rotation`` goes through ``rotate`` first, which rotates and writes the caches, unless the route
    does so itself.
    """
    if g.building:
        for route in _ROUTES.values():
            if route.takes(call):
                route.prepare(g, call)
    names = [*_CPU_FIRST, *_ROUTES] if g.features.cpu else [*_ROUTES]
    if g.matmul_precision == "high":
        names = [*_ROUNDED, *names]
    routes = {name: _ROUTES[name].takes(call) and _ROUTES[name].fits(g, call) for name in names}
    if not any(routes.values()):
        q = call.q
        g.check(call.mask is None and call.causal, f"sdpa_with_kv_cache: {q} needs is_causal and no mask above D = 256")
        materialized.check_scratch(g, call)
    route = _ROUTES[g.choose("sdpa_with_kv_cache", routes)]
    if rotate is not None and not route.rotates(g, call):
        call = rotate(g, call)
    route.run(g, call)


@op(
    "llama.update_cache.default",
    "update_cache.default",
    reference=reference.update_cache,
    sizes=lambda s, *args: (1,),
    # No rows: where a token is written depends on how many there are before it.
    caches={"cache": "value"},
    position="start_pos",
)
def update_cache(g: Planner, value: Tensor, cache: Tensor, start_pos: IntLike, out: Tensor) -> None:
    """Write ``value`` [1, S, H, D], float32, into ``cache`` [1, Cmax, H, D] from row ``start_pos``.

    The cache is float32, float16, or int8 with scales; the latter two need a D that is a multiple of 4.
    ``out`` is a one-element stand-in that exports need to order the write; it becomes 0.
    """
    g.check(_are_float32(value, out), f"update_cache takes float32, not {value} into {cache} and {out}")
    fits = value.rank == 4 and cache.rank == 4 and value.dims[2:] == cache.dims[2:]
    g.check(fits, f"update_cache cannot write {value} into {cache}: heads and head size must be the same")
    g.check(value.dims[0] == cache.dims[0] == 1, f"update_cache needs batch 1, not {value} into {cache}")
    _check_cache(g, "update_cache", cache)
    _watch_context(g, "update_cache", value, cache, start_pos)
    update_caches(g, [(value, cache)], start_pos)
    g.resize(out, out.max_dims)
    g.dispatch("sdpa/zero", g.grid_1d(out.numel, 64), {"out": out}, {"n": out.numel})


def _are_float32(*tensors: Tensor) -> bool:
    return all(t.dtype == "float32" for t in tensors)


def _check_shapes(g: Planner, q: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor) -> None:
    tensors = (q, k, v, k_cache, v_cache)
    g.check(_are_float32(q, k, v), f"sdpa_with_kv_cache takes float32 tensors, not {list(tensors)}")
    g.check(
        all(t.rank == 4 for t in tensors),
        f"sdpa_with_kv_cache takes [1, S, heads, D] tensors, not {list(tensors)}",
    )
    g.check(
        all(t.dims[0] == 1 for t in tensors),
        f"sdpa_with_kv_cache needs batch 1, but q is {q} and k_cache {k_cache}",
    )
    _, length, heads, head_dim = q.dims
    kv_heads = k_cache.dims[2]
    same = k_cache.dims == v_cache.dims and k_cache.dims[3] == head_dim
    g.check(same, f"sdpa_with_kv_cache: caches {k_cache} and {v_cache} must both be [1, Cmax, Hkv, {head_dim}]")
    g.check(k_cache.dtype == v_cache.dtype, f"sdpa_with_kv_cache: caches {k_cache} and {v_cache} differ in dtype")
    for name, new in (("k", k), ("v", v)):
        wanted = (1, length, kv_heads, head_dim)
        g.check(
            new.dims == wanted,
            f"sdpa_with_kv_cache: {name} is {list(new.dims)}, but must be {list(wanted)} like q",
        )
    g.check(
        kv_heads > 0 and heads % kv_heads == 0,
        f"sdpa_with_kv_cache: {heads} query heads are not a multiple of {kv_heads} key/value heads",
    )
    g.check(head_dim % 4 == 0, f"sdpa_with_kv_cache: head size {head_dim} is not a multiple of 4")
    _check_cache(g, "sdpa_with_kv_cache", k_cache)


def _check_cache(g: Planner, name: str, cache: Tensor) -> None:
    known = cache.dtype in ("float32", "float16") or (cache.dtype == "int8" and cache.scales is not None)
    g.check(known, f"{name}: the cache {cache} must be float32 or float16; load_method makes it int8 by kv_cache_dtype")
    whole = cache.dtype == "float32" or cache.dims[3] % 4 == 0
    g.check(whole, f"{name}: the head size of a {cache.dtype} cache must be a multiple of 4, not {cache.dims[3]}")


def _watch_context(g: Planner, name: str, rows: Tensor, cache: Tensor, input_pos: IntLike) -> int:
    """input_pos + S, rounded up; a step that would leave the cache is rejected before anything is written."""
    capacity = cache.dims[1]
    g.check(rows.dims[1] <= capacity, f"{name}: up to {rows.dims[1]} new rows cannot fit a cache of {capacity}")

    def context(position: int) -> int:
        length = rows.dims[1]  # the live one: this runs again whenever input_pos moves
        if position < 0:
            raise InvalidInputError(f"{name}: input_pos is {position}, but it cannot be negative")
        if position + length > capacity:
            raise InvalidInputError(
                f"{name}: input_pos {position} + {length} new tokens = {position + length}, but the cache "
                f"has {capacity} rows; shorten the input or start again"
            )
        return min(capacity, round_context(position + length))

    rounded: int = g.derive(context, input_pos)
    return rounded


def update_caches(g: Planner, pairs: list[tuple[Tensor, Tensor]], input_pos: IntLike) -> None:
    """One dispatch that writes every source's rows into its cache; all pairs have the same shape and dtypes."""
    source, cache = pairs[0]
    heads, head_dim = cache.dims[2:]
    bindings: dict[str, Tensor | IntLike] = {"input_pos": input_pos}
    for i, (rows, target) in enumerate(pairs):
        bindings |= {f"rows{i}": rows, f"cache{i}": target}
        if target.scales is not None:
            bindings[f"scales{i}"] = target.scales
    if cache.dtype == "int8":
        n = source.dims[1] * heads
        params = {"n": n, "heads": heads, "vectors": head_dim // 4}
        template = {"count": len(pairs)}
        g.dispatch("sdpa/cache_update_int8", g.grid_1d(n, 1), bindings, params, template=template)
        return
    row_length = heads * head_dim
    width = 4 if row_length % 4 == 0 else 1
    n = source.numel // width
    g.dispatch(
        "sdpa/cache_update",
        g.grid_1d(n, 64),
        bindings,
        {"n": n, "row_length": row_length // width},
        template={"count": len(pairs), "width": width, "cache": cache.dtype},
    )
