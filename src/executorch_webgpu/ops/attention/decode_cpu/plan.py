"""The route of a few new tokens for CPUs: scores in memory, then softmax and attention * V together.

The second kernel splits the columns over the invocations of a workgroup, since a few rows alone keep no device busy.
"""

from __future__ import annotations

from typing import Any

from ...plan import Planner
from ...shapes import ceil_div
from ..call import AttentionCall
from ..scores import plan as scores

MAX_LENGTH = 8
_SCORES_WORKGROUP = (32, 1)
_WORKGROUP = 64


def fits(planner: Planner, call: AttentionCall) -> bool:
    small = call.length <= MAX_LENGTH and scores.scores_bytes(call, call.length, call.context) <= planner.scratch_bytes
    return small and call.k_cache.dtype == "float32"


def prepare(planner: Planner, call: AttentionCall) -> None:
    for length in (1, MAX_LENGTH) if call.k_cache.dtype == "float32" else ():
        scores.prepare(planner, call, _rows(call, length, 8), _SCORES_WORKGROUP)
        overrides, template = _variant(call, length)
        planner.prepare("attention/decode_cpu", template=template, overrides=overrides)


def run(planner: Planner, call: AttentionCall) -> None:
    scratch = scores.scores_scratch(planner, call)
    stride = scores.run(planner, call, scratch, 0, call.length, _rows(call, call.length, 8), _SCORES_WORKGROUP)
    rows = call.length * call.group  # of one KV head
    overrides, template = _variant(call, call.length)
    planner.dispatch(
        "attention/decode_cpu",
        (
            ceil_div(rows, template["rows"]),
            ceil_div(call.vectors, overrides["lanes"] * template["vectors"]),
            call.kv_heads,
        ),
        {"scores": scratch, "v_cache": call.v_cache, "out": call.out, "input_pos": call.input_pos},
        {
            "block_rows": rows,
            "group_size": call.group,
            "kv_heads": call.kv_heads,
            "vectors": call.vectors,
            "stride": 4 * stride,
        },
        overrides=overrides,
        template=template,
    )


def _rows(call: AttentionCall, length: int, most: int) -> int:
    """Packed rows of an invocation, or of a workgroup: with one token exactly a group, if that is not too large."""
    return min(most, call.group) if length == 1 else most


def _variant(call: AttentionCall, length: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(overrides, template): how a workgroup divides D among its invocations, and its rows."""
    vectors = 2 if call.vectors % 2 == 0 else 1
    units = call.vectors // vectors
    lanes = max(n for n in range(1, 9) if units % n == 0)
    overrides = {"wg_size": _WORKGROUP, "lanes": lanes, "parts": _WORKGROUP // lanes}
    return overrides, {"rows": _rows(call, length, 4), "vectors": vectors}
