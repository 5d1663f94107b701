"""The decode route: a few new tokens. Scores, then softmax and attention * V together.

The second kernel splits the columns over the invocations of a workgroup, since a few rows alone keep no
device busy.
"""

from __future__ import annotations

from typing import Any

from ..plan import Planner
from ..shapes import ceil_div
from .call import AttentionCall, scores_bytes, scores_scratch

MAX_LENGTH = 8
_SCORES_WORKGROUP = {"wg_x": 32, "wg_y": 1}
_WORKGROUP = 64


def fits(g: Planner, call: AttentionCall) -> bool:
    small = call.length <= MAX_LENGTH and scores_bytes(call, call.length, call.context) <= g.scratch_bytes
    return small and _reads(call)


def _reads(call: AttentionCall) -> bool:
    return call.k_cache.dtype == call.v_cache.dtype == "float32"


def prepare(g: Planner, call: AttentionCall) -> None:
    for length in (1, MAX_LENGTH) if _reads(call) else ():
        g.prepare("sdpa/scores", template=_scores_template(call, length), overrides=_SCORES_WORKGROUP)
        overrides, template = _values_variant(call, length)
        g.prepare("sdpa/decode_values", template=template, overrides=overrides)


def run(g: Planner, call: AttentionCall) -> None:
    rows = call.length * call.group  # of one KV head
    template = _scores_template(call, call.length)
    stride = ceil_div(call.context, 4 * template["quads"]) * template["quads"]  # in vec4s
    scores = scores_scratch(g, call)
    shape = {"block_rows": rows, "group_size": call.group, "kv_heads": call.kv_heads, "vectors": call.vectors}
    g.dispatch(
        "sdpa/scores",
        (ceil_div(stride, 32 * template["quads"]), ceil_div(rows, template["rows"]), call.kv_heads),
        {"q": call.q, "k_cache": call.k_cache, "scores": scores, "input_pos": call.input_pos},
        {**shape, "first_token": 0, "stride": stride, "scale": call.scale},
        overrides=_SCORES_WORKGROUP,
        template=template,
    )
    overrides, template = _values_variant(call, call.length)
    g.dispatch(
        "sdpa/decode_values",
        (
            ceil_div(rows, template["rows"]),
            ceil_div(call.vectors, overrides["lanes"] * template["vectors"]),
            call.kv_heads,
        ),
        {"scores": scores, "v_cache": call.v_cache, "out": call.out, "input_pos": call.input_pos},
        {**shape, "stride": 4 * stride},
        overrides=overrides,
        template=template,
    )


def _scores_template(call: AttentionCall, length: int) -> dict[str, Any]:
    """The tile of an invocation: with one token it is exactly a group, if that is not too large."""
    return {"rows": min(8, call.group) if length == 1 else 8, "quads": 2}


def _values_variant(call: AttentionCall, length: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(overrides, template): how a workgroup divides D among its invocations, and its rows."""
    vectors = 2 if call.vectors % 2 == 0 else 1
    units = call.vectors // vectors
    lanes = max(n for n in range(1, 9) if units % n == 0)
    overrides = {"wg_size": _WORKGROUP, "lanes": lanes, "parts": _WORKGROUP // lanes}
    return overrides, {"rows": min(4, call.group) if length == 1 else 4, "vectors": vectors}
