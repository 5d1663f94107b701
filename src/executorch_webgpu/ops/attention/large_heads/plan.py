"""The route for heads above 256: any number of new tokens, in blocks whose scores fit in the scratch bound.

A block is a range of tokens with all their heads: scores, softmax in place, attention * V.
"""

from __future__ import annotations

from typing import Any

from ....errors import LimitError
from ...plan import Planner
from ...shapes import ceil_div
from ...values import Scratch
from ..call import AttentionCall
from ..scores import plan as scores

_ROWS = 8  # packed rows per invocation; the three kernels must agree
_SCORES_WORKGROUP = (8, 8)
_SOFTMAX = {"rows": _ROWS}


def fits(planner: Planner, call: AttentionCall) -> bool:
    return scores.scores_bytes(call, 1, call.capacity) <= planner.scratch_bytes


def check_scratch(planner: Planner, call: AttentionCall) -> None:
    """Say what this route would need where no other route can run."""
    needed = scores.scores_bytes(call, 1, call.capacity)
    if needed > planner.scratch_bytes:
        raise LimitError(
            f"attention over a cache of {call.capacity} rows needs {needed} bytes of scratch per token, "
            f"but scratch is bounded at {planner.scratch_bytes}; raise the bound"
        )


def prepare(planner: Planner, call: AttentionCall) -> None:
    if not fits(planner, call):
        return
    scores.prepare(planner, call, _ROWS, _SCORES_WORKGROUP)
    planner.prepare("attention/large_heads/softmax", template=_SOFTMAX)
    planner.prepare("attention/large_heads/values", template=_values_template(call))


def run(planner: Planner, call: AttentionCall) -> None:
    scratch = scores.scores_scratch(planner, call)
    tokens = planner.scratch_bytes // scores.scores_bytes(call, 1, call.context)
    for first in range(0, call.length, tokens):
        _block(planner, call, scratch, first, min(tokens, call.length - first))


def _block(planner: Planner, call: AttentionCall, scratch: Scratch, first: int, tokens: int) -> None:
    stride = scores.run(planner, call, scratch, first, tokens, _ROWS, _SCORES_WORKGROUP)
    rows = tokens * call.group  # of one KV head
    shape = {"block_rows": rows, "first_token": first, "group_size": call.group}
    planner.dispatch(
        "attention/large_heads/softmax",
        (rows, call.kv_heads),
        {"scores": scratch, "input_pos": call.input_pos},
        {**shape, "stride": 4 * stride},
        template=_SOFTMAX,
    )
    template = _values_template(call)
    planner.dispatch(
        "attention/large_heads/values",
        (ceil_div(call.vectors // template["vectors"] * ceil_div(rows, _ROWS), 64), call.kv_heads),
        {"scores": scratch, "out": call.out, "input_pos": call.input_pos, **call.values},
        {**shape, "kv_heads": call.kv_heads, "vectors": call.vectors, "stride": stride},
        template=template,
    )


def _values_template(call: AttentionCall) -> dict[str, Any]:
    return {"rows": _ROWS, "vectors": 2 if call.vectors % 2 == 0 else 1, "cache": call.v_cache.dtype}
