"""Rotary embedding, the write to the KV caches and attention as one operator: what fusion makes of the three.

One dispatch rotates the queries into a tensor and the keys straight into their cache, and copies the values; attention
then is that of ``sdpa_with_kv_cache``, with all its routes. One of them, for decode, does all of that in a dispatch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..registry import op
from ..rope import check_halves, check_pairs
from ..rope import reference as rope
from ..sdpa import AttentionCall, Rotation, attend, checked_call, update_caches
from ..sdpa import reference as attention
from ..values import IntLike, Tensor

Array = np.ndarray

_ELEMENT_WORKGROUP = 64
_ROW_WORKGROUP = 32
_BUFFERS_OF_INT8 = 10  # storage buffers of a kernel that writes both caches and their scales


def rope_sdpa_with_kv_cache_reference(
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
    out = attention.sdpa_with_kv_cache(
        q, k, v, k_cache, v_cache, input_pos, 1, attn_mask, 0.0, is_causal, scale, stored_as=stored_as
    )
    return q, out


@op(
    "et_webgpu.rope_sdpa_with_kv_cache.default",
    reference=rope_sdpa_with_kv_cache_reference,
    sizes=lambda s, q, *rest: [s.of(q), s.of(q)],
    reads_rows_of=("cos", "sin"),
    # No rows: a token sees those before it in the caches, and where it is written depends on how many there are.
    caches={"k_cache": "k", "v_cache": "v"},
    position="input_pos",
)
def rope_sdpa_with_kv_cache(
    g: Planner,
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
) -> None:
    """``apply_rotary_emb`` of q and k, or ``_hf`` with ``halves``, then ``sdpa_with_kv_cache``.

    Token s takes row ``start_pos`` + s of cos and sin: [rows, D/2], or [rows, R] with ``halves``. ``outs`` are the
    rotated q and the result of attention, both [1, S, Hq, D]. All else is as in those operators.
    """
    name = "rope_sdpa_with_kv_cache"
    g.check(len(outs) == 2, f"{name} has two results, not {len(outs)}")
    turned, out = outs
    call = checked_call(g, q, k, v, k_cache, v_cache, input_pos, attn_mask, is_causal, scale, out)
    check = check_halves if halves else check_pairs
    half = check(g, name, q, k, cos, sin, start_pos, [turned, out])
    g.resize(turned, q.dims)
    call = replace(call, rotation=Rotation(cos, sin, start_pos, bool(halves), half, turned))
    kernel, template, overrides = _kernel(g, call)
    g.prepare(kernel, template=template, overrides=overrides)
    attend(g, call, _rotate)


def _kernel(g: Planner, call: AttentionCall) -> tuple[str, dict[str, Any], dict[str, int]]:
    """What rotates and stores: its name, template values and overrides."""
    assert call.rotation is not None, "nothing else comes here"
    int8 = call.k_cache.dtype == "int8"
    together = not int8 or g.limits.max_storage_buffers >= _BUFFERS_OF_INT8
    return (
        "rope_attention/rotate_and_store_int8" if int8 else "rope_attention/rotate_and_store",
        {"halves": call.rotation.halves, "cache": call.k_cache.dtype, "values": together},
        {"wg_size": _ROW_WORKGROUP if int8 else _ELEMENT_WORKGROUP},
    )


def _rotate(g: Planner, call: AttentionCall) -> AttentionCall:
    """Dispatch the rotation and the write to the caches; what is left to do."""
    rotation = call.rotation
    assert rotation is not None, "nothing else comes here"
    kernel, template, overrides = _kernel(g, call)
    _, tokens, q_heads, head_dim = call.q.dims
    together = template["values"]
    rows = tokens * (q_heads + call.kv_heads * (2 if together else 1))
    bindings: dict[str, Binding | None] = {
        **{"q": call.q, "k": call.k, "cos_table": rotation.cos, "sin_table": rotation.sin, "turned": rotation.turned},
        **{"k_cache": call.k_cache, "k_scales": call.k_scales},
        **{"input_pos": call.input_pos, "start_pos": rotation.start_pos},
        **({"v": call.v, "v_cache": call.v_cache, "v_scales": call.v_scales} if together else {}),
    }
    g.dispatch(
        kernel,
        g.grid_1d(rows, 1) if call.k_scales is not None else g.grid_1d(rows * head_dim // 4, _ELEMENT_WORKGROUP),
        {name: value for name, value in bindings.items() if value is not None},
        {
            "rows": rows,
            "tokens": tokens,
            "q_heads": q_heads,
            "kv_heads": call.kv_heads,
            "vectors": head_dim // 4,
            "half": rotation.half,
        },
        overrides=overrides,
        template=template,
    )
    if not together:
        update_caches(g, [(call.v, call.v_cache)], call.input_pos)
    return replace(call, q=rotation.turned, rotation=None)
