"""One dispatch that rotates the queries into a tensor and the keys straight into their cache, and copies the values.

Attention then is that of ``sdpa_with_kv_cache``. One of its routes, for decode, does all of that in its own dispatch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...plan import Binding, Planner
from ..cache_update.plan import update_caches
from ..call import AttentionCall

_ELEMENT_WORKGROUP = 64
_ROW_WORKGROUP = 32
_BUFFERS_OF_INT8 = 10  # storage buffers of a kernel that writes both caches and their scales


def prepare(planner: Planner, call: AttentionCall) -> None:
    template, overrides = _variant(planner, call)
    planner.prepare("attention/rotate_and_store", template=template, overrides=overrides)


def _variant(planner: Planner, call: AttentionCall) -> tuple[dict[str, Any], dict[str, int]]:
    """(template values, overrides)."""
    assert call.rotation is not None, "nothing else comes here"
    int8 = call.k_cache.dtype == "int8"
    together = not int8 or planner.limits.max_storage_buffers >= _BUFFERS_OF_INT8
    template = {"rotation": call.rotation.kind, "cache": call.k_cache.dtype, "values": together}
    return template, {"wg_size": _ROW_WORKGROUP if int8 else _ELEMENT_WORKGROUP}


def run(planner: Planner, call: AttentionCall) -> AttentionCall:
    """Dispatch the rotation and the write to the caches; what is left to do."""
    rotation = call.rotation
    assert rotation is not None, "nothing else comes here"
    template, overrides = _variant(planner, call)
    _, tokens, q_heads, head_dim = call.q.dims
    together = template["values"]
    rows = tokens * (q_heads + call.kv_heads * (2 if together else 1))
    bindings: dict[str, Binding] = {
        **{"q": call.q, "k": call.k, "input_pos": call.input_pos, **call.keys, **rotation.bindings},
        **({"v": call.v, **call.values} if together else {}),
    }
    planner.dispatch(
        "attention/rotate_and_store",
        planner.grid_1d(rows, 1)
        if "k_scales" in bindings
        else planner.grid_1d(rows * head_dim // 4, _ELEMENT_WORKGROUP),
        bindings,
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
        update_caches(planner, [(call.v, call.v_cache)], call.input_pos)
    return replace(call, q=rotation.rotated_q, rotation=None)
