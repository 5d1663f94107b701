"""The lanes route: attention on adapters that are CPUs, for any number of new tokens and caches of every dtype.

A workgroup is one subgroup, and reads K and V once for its rows, which share a KV head. The context of few rows is
split over workgroups.
"""

from __future__ import annotations

from typing import Any

from ...plan import Planner
from ...shapes import ceil_div
from ..call import AttentionCall
from ..merge_splits.plan import Reduction, Splits, attend_split, prepare_reduction

_MAX_ROWS = 8  # packed rows of a workgroup
_MAX_VECTORS = 128  # of its queries: the kernel names each
_WORKGROUPS = 16  # of rows: as many keep the cores of a CPU busy, without splits
_CHUNK = 256  # columns of a split: reading them takes longer than a second dispatch
_MAX_SPLITS = 64
_REDUCTION = Reduction(workgroup_size=16, lanes=16)  # there are few splits to put together


def fits(planner: Planner, call: AttentionCall) -> bool:
    return _can_compile(planner, call) and _splits(call).nbytes(call) <= planner.scratch_bytes


def prepare(planner: Planner, call: AttentionCall) -> None:
    """Pipelines for a single token and for more."""
    if not _can_compile(planner, call):
        return
    for length in {1, call.length}:
        planner.prepare("attention/lanes", template=_template(planner, call, length))
    prepare_reduction(planner, call, _REDUCTION)


def run(planner: Planner, call: AttentionCall) -> None:
    attend_split(
        planner,
        call,
        _splits(call),
        _REDUCTION,
        "attention/lanes",
        _row_blocks(call),
        template=_template(planner, call, call.length),
    )


def _can_compile(planner: Planner, call: AttentionCall) -> bool:
    return (
        planner.features.cpu
        and planner.features.subgroup_size > 0
        and planner.limits.max_storage_buffers >= 4 + len(call.caches)
        and call.vectors <= _MAX_VECTORS
    )


def _rows(call: AttentionCall, length: int) -> int:
    """Packed rows of a workgroup: with one token a group, in even parts if it is too large."""
    most = min(_MAX_ROWS, _MAX_VECTORS // call.vectors)
    return ceil_div(call.group, ceil_div(call.group, most)) if length == 1 else most


def _row_blocks(call: AttentionCall) -> int:
    return ceil_div(call.length * call.group, _rows(call, call.length))


def _splits(call: AttentionCall) -> Splits:
    if _row_blocks(call) * call.kv_heads >= _WORKGROUPS:
        return Splits(call.context, 1, 1)
    chunk = ceil_div(ceil_div(call.context, _MAX_SPLITS), _CHUNK) * _CHUNK
    return Splits(chunk, ceil_div(call.context, chunk), min(ceil_div(call.capacity, _CHUNK), _MAX_SPLITS))


def _template(planner: Planner, call: AttentionCall, length: int) -> dict[str, Any]:
    return {
        "lanes": planner.features.subgroup_size,
        "rows": _rows(call, length),
        "vectors": call.vectors,
        "cache": call.k_cache.dtype,
    }
