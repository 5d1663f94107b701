"""One dispatch that rotates the queries into a tensor and the keys straight into their cache, and copies the values.

Attention then is that of ``sdpa_with_kv_cache``, or of ``paged_sdpa``. One of their routes, for decode, does all of
that in its own dispatch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...plan import Binding, Planner
from ...values import Scratch, Tensor
from ..cache_update.plan import update_caches
from ..call import AttentionCall, Rotation
from ..paging import Paging

_ELEMENT_WORKGROUP = 64
_ROW_WORKGROUP = 32
# What dispatches make of queries, keys and values; values that none of them makes are copied by another kernel.
_WAYS = (("qkv",), ("qk",), ("q", "k"))


def prepare(planner: Planner, call: AttentionCall, paging: Paging | None = None) -> None:
    for made in _dispatches(planner, call, paging):
        template, overrides = _variant(call, made, paging)
        planner.prepare("attention/rotate_and_store", template=template, overrides=overrides)


def run(planner: Planner, call: AttentionCall) -> AttentionCall:
    """Dispatch the rotation and the write to the caches; what is left to do."""
    rotated = rotate(planner, call)
    assert isinstance(rotated, Tensor), "it is an output of the operator"
    return replace(call, q=rotated, rotation=None)


def rotate(planner: Planner, call: AttentionCall, paging: Paging | None = None) -> Tensor | Scratch:
    """The same, also where rows of the caches lie in pages; where the rotated queries are."""
    rotation = call.rotation
    assert rotation is not None, "nothing else comes here"
    ways = _dispatches(planner, call, paging)
    for made in ways:
        _dispatch(planner, call, rotation, made, paging)
    if "v" not in ways[0]:
        input_pos = call.input_pos if paging is None else None
        update_caches(planner, [(call.v, call.v_cache)], input_pos, paging)
    return rotation.rotated_q


def _dispatch(planner: Planner, call: AttentionCall, rotation: Rotation, made: str, paging: Paging | None) -> None:
    template, overrides = _variant(call, made, paging)
    _, tokens, q_heads, head_dim = call.q.dims
    heads = {"q": q_heads, "k": call.kv_heads, "v": call.kv_heads}
    rows = tokens * sum(heads[x] for x in made)
    by_rows = template["cache"] == "int8"
    grid = planner.grid_1d(rows, 1) if by_rows else planner.grid_1d(rows * head_dim // 4, _ELEMENT_WORKGROUP)
    params = {"rows": rows, "tokens": tokens, "q_heads": q_heads, "kv_heads": call.kv_heads}
    where = {} if paging is None else paging.params
    planner.dispatch(
        "attention/rotate_and_store",
        grid,
        _bindings(call, rotation, made, paging),
        {**params, "vectors": head_dim // 4, "half": rotation.half, **where},
        overrides=overrides,
        template=template,
    )


def _bindings(call: AttentionCall, rotation: Rotation, made: str, paging: Paging | None) -> dict[str, Binding]:
    bindings = rotation.tables
    if "q" in made:
        bindings |= {"q": call.q, "rotated_q": rotation.rotated_q}
    if "k" in made:
        bindings |= {"k": call.k, **call.keys}
    if "v" in made:
        bindings |= {"v": call.v, **call.values}
    if paging is None:
        return bindings if made == "q" else {**bindings, "input_pos": call.input_pos}
    return bindings | ({"places": paging.places} if made == "q" else paging.bindings)


def _variant(call: AttentionCall, made: str, paging: Paging | None) -> tuple[dict[str, Any], dict[str, int]]:
    """(template values, overrides)."""
    assert call.rotation is not None, "nothing else comes here"
    dtype = "float32" if made == "q" else call.k_cache.dtype
    template = {"rotation": call.rotation.kind, "cache": dtype, "made": made, "paged": paging is not None}
    return template, {"wg_size": _ROW_WORKGROUP if dtype == "int8" else _ELEMENT_WORKGROUP}


def _dispatches(planner: Planner, call: AttentionCall, paging: Paging | None) -> tuple[str, ...]:
    """The fewest whose kernels have no more storage buffers than the device allows."""

    def buffers(made: str) -> int:
        cache = 2 if call.k_cache.scales is None else 3  # the rows, the cache, and its scales
        paged = 0 if paging is None else 1 if made == "q" else 2
        return 2 + 2 * ("q" in made) + cache * (len(made) - ("q" in made)) + paged

    most = planner.limits.max_storage_buffers
    return next((way for way in _WAYS if all(buffers(made) <= most for made in way)), _WAYS[-1])
