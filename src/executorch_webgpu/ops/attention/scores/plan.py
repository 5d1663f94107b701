"""Scores in memory, for the routes that keep them there: a buffer for a range of tokens, and what fills it."""

from __future__ import annotations

from typing import Any

from ...plan import Planner
from ...shapes import ceil_div
from ...values import Scratch
from ..call import AttentionCall

TILE_COLUMNS = 8  # columns that one invocation computes
Workgroup = tuple[int, int]  # along the columns, and along the rows


def scores_bytes(call: AttentionCall, tokens: int, columns: int) -> int:
    """Bytes of float32 scores for ``tokens`` query rows of every head; rows are padded to a kernel's tile."""
    return 4 * call.q.dims[2] * tokens * ceil_div(columns, TILE_COLUMNS) * TILE_COLUMNS


def scores_scratch(planner: Planner, call: AttentionCall) -> Scratch:
    """The scores' buffer: as much as any step of this program can need, but at most ``planner.scratch_bytes``."""
    return planner.scratch(min(planner.scratch_bytes, scores_bytes(call, call.q.max_dims[1], call.capacity)))


def prepare(planner: Planner, call: AttentionCall, rows: int, workgroup: Workgroup) -> None:
    template, overrides = _variant(call, rows, workgroup)
    planner.prepare("attention/scores", template=template, overrides=overrides)


def run(
    planner: Planner, call: AttentionCall, scores: Scratch, first: int, tokens: int, rows: int, workgroup: Workgroup
) -> int:
    """The scores of ``tokens`` tokens from ``first`` on, ``rows`` packed rows an invocation.

    Returns the vec4s between two rows.  Columns past the last of these tokens are not computed.
    """
    after = call.length - first - tokens  # tokens after them: as many columns that they cannot see
    column_tiles = ceil_div(call.context - after, TILE_COLUMNS)
    stride = column_tiles * TILE_COLUMNS // 4
    template, overrides = _variant(call, rows, workgroup)
    packed_rows = tokens * call.group
    planner.dispatch(
        "attention/scores",
        (ceil_div(column_tiles, workgroup[0]), ceil_div(ceil_div(packed_rows, rows), workgroup[1]), call.kv_heads),
        {"q": call.q, "scores": scores, "input_pos": call.input_pos, **call.keys},
        {
            "block_rows": packed_rows,
            "first_token": first,
            "group_size": call.group,
            "kv_heads": call.kv_heads,
            "vectors": call.vectors,
            "stride": stride,
            "scale": call.scale,
        },
        overrides=overrides,
        template=template,
    )
    return stride


def _variant(call: AttentionCall, rows: int, workgroup: Workgroup) -> tuple[dict[str, Any], dict[str, int]]:
    return {"rows": rows, "cache": call.k_cache.dtype}, {"wg_x": workgroup[0], "wg_y": workgroup[1]}
