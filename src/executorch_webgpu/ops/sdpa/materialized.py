"""The materialized route: any number of new tokens, in blocks whose scores fit in the scratch bound.

A block is a range of tokens with all their heads: scores, softmax in place, attention * V. Columns behind a
block's last token are not computed.
"""

from __future__ import annotations

from typing import Any

from ...errors import LimitError
from ..plan import Planner
from ..shapes import ceil_div
from ..values import Scratch, Tensor
from .call import TILE_COLUMNS, AttentionCall, scores_bytes, scores_scratch

_ROWS = 8  # packed rows per invocation; the three kernels must agree
_SOFTMAX = {"rows": _ROWS}


def fits(g: Planner, call: AttentionCall) -> bool:
    return scores_bytes(call, 1, call.capacity) <= g.scratch_bytes


def check_scratch(g: Planner, call: AttentionCall) -> None:
    """Say what this route would need where no other route can run."""
    needed = scores_bytes(call, 1, call.capacity)
    if needed > g.scratch_bytes:
        raise LimitError(
            f"attention over a cache of {call.capacity} rows needs {needed} bytes of scratch per token, "
            f"but scratch is bounded at {g.scratch_bytes}; raise the bound"
        )


def prepare(g: Planner, call: AttentionCall) -> None:
    if not fits(g, call):
        return
    g.prepare("sdpa/scores", template=_scores_template(call))
    g.prepare("sdpa/softmax_rows", template=_SOFTMAX)
    g.prepare("sdpa/attention_values", template=_values_template(call))


def run(g: Planner, call: AttentionCall) -> None:
    scores = scores_scratch(g, call)
    tokens = g.scratch_bytes // scores_bytes(call, 1, call.context)
    for first in range(0, call.length, tokens):
        _block(g, call, scores, first, min(tokens, call.length - first))


def _block(g: Planner, call: AttentionCall, scores: Scratch, first: int, tokens: int) -> None:
    rows = tokens * call.group  # of one KV head
    tiles = ceil_div(rows, _ROWS)
    behind = call.length - first - tokens  # tokens after this block: as many columns that it cannot see
    column_tiles = ceil_div(call.context - behind, TILE_COLUMNS)
    stride = column_tiles * TILE_COLUMNS // 4  # in vec4s
    shape = {"block_rows": rows, "first_token": first, "group_size": call.group}
    heads = {"kv_heads": call.kv_heads, "vectors": call.vectors}
    g.dispatch(
        "sdpa/scores",
        (ceil_div(column_tiles, 8), ceil_div(tiles, 8), call.kv_heads),
        {"q": call.q, "scores": scores, "input_pos": call.input_pos, **_cache("k", call.k_cache)},
        {**shape, **heads, "stride": stride, "scale": call.scale},
        template=_scores_template(call),
    )
    g.dispatch(
        "sdpa/softmax_rows",
        (rows, call.kv_heads),
        {"scores": scores, "input_pos": call.input_pos},
        {**shape, "stride": 4 * stride},
        template=_SOFTMAX,
    )
    template = _values_template(call)
    g.dispatch(
        "sdpa/attention_values",
        (ceil_div(call.vectors // template["vectors"] * tiles, 64), call.kv_heads),
        {"scores": scores, "out": call.out, "input_pos": call.input_pos, **_cache("v", call.v_cache)},
        {**shape, **heads, "stride": stride},
        template=template,
    )


def _cache(name: str, cache: Tensor) -> dict[str, Tensor]:
    """Bindings of a cache and of its scales, if it has any."""
    scales = {} if cache.scales is None else {f"{name}_scales": cache.scales}
    return {f"{name}_cache": cache, **scales}


def _scores_template(call: AttentionCall) -> dict[str, Any]:
    return {"rows": _ROWS, "quads": TILE_COLUMNS // 4, "cache": call.k_cache.dtype}


def _values_template(call: AttentionCall) -> dict[str, Any]:
    return {"rows": _ROWS, "vectors": 2 if call.vectors % 2 == 0 else 1, "cache": call.v_cache.dtype}
