"""The flash_decode route: up to 8 new tokens, the context split over workgroups, K and V read once a KV head.

A workgroup attends with up to ``Tuning.max_rows`` packed rows (token * group + query head) over one chunk of the
context: scores, softmax and values without leaving the device's registers and workgroup memory. A second kernel
puts the chunks together, unless there is only one. Nothing grows with the context but the number of chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ...plan import Planner
from ...shapes import ceil_div
from ...values import Tensor
from ..call import AttentionCall
from ..merge_splits.plan import REDUCTION, Reduction, Splits, attend_split, prepare_reduction

MAX_LENGTH = 8
_ROW_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16)  # packed rows of a workgroup, each one a pipeline


@dataclass(frozen=True)
class Tuning:
    """What the kernels' speed depends on, not their result."""

    workgroup_size: int = 256
    load_bytes: int = 16  # of a load of K or V; narrower where a head is no multiple of it
    loads: int = 1  # of each row by one invocation; more means fewer lanes along D
    key_unroll: int = 2  # rows of K that an invocation loads before it uses them
    value_unroll: int = 4
    max_rows: int = 8  # packed rows of a workgroup; more rows are other workgroups
    queries: int = 64  # elements of q that an invocation keeps in registers
    tile_keys: int = 128  # most keys whose partial dot products are exchanged at a time
    min_chunk: int = 64  # columns of a split: powers of two
    max_chunk: int = 512
    single_chunk: int = 256  # contexts up to this are one split, which needs no second kernel
    workgroups: int = 256  # chunks are as long as leaves about this many
    workgroup_bytes: int = 40 << 10  # of workgroup memory, if the device has them
    reduction: Reduction = REDUCTION


TUNING = Tuning()
INT8_TUNING = Tuning(workgroup_size=128, key_unroll=4, value_unroll=8)  # more arithmetic for a load
# A software adapter runs the invocations of a workgroup as SIMD lanes on one core: few of them, and few workgroups.
CPU_TUNING = Tuning(workgroup_size=32, max_chunk=1024, single_chunk=1024, workgroups=16, reduction=Reduction(32))


@dataclass(frozen=True)
class Variant:
    """The kernel for one number of rows and one cache: how a workgroup divides its work."""

    workgroup_size: int
    rows: int
    width: int  # elements of a load
    loads: int
    lanes: int  # invocations along D: head size / (width * loads)
    parts: int  # rows of the cache that are read at a time
    key_unroll: int
    value_unroll: int
    rows_per_round: int  # whose sums are exchanged at a time
    max_chunk: int

    @property
    def elements(self) -> int:
        """Of D, held by one invocation."""
        return self.width * self.loads

    @property
    def score_columns(self) -> int:
        """``max_chunk`` rounded up to whole tiles of keys and of values."""
        tiles = (self.parts * self.key_unroll, self.parts * self.value_unroll)
        return _round_up(max(_round_up(self.max_chunk, tile) for tile in tiles), 4)

    @property
    def exchange_size(self) -> int:
        dots = self.parts * self.key_unroll * (self.lanes | 1) * self.rows
        padded = self.workgroup_size + max(1, 32 // self.elements)
        return _round_up(max(dots, self.rows_per_round * self.elements * padded), 4)

    @property
    def workgroup_bytes(self) -> int:
        return 4 * (self.exchange_size + self.rows * (self.score_columns + 8) + self.workgroup_size) + 16

    def template(self, dtype: str, paged: bool = False, listed: bool = False) -> dict[str, Any]:
        names = ("rows", "width", "loads", "key_unroll", "value_unroll", "rows_per_round")
        return {"cache": dtype, "paged": paged, "listed": listed, **{name: getattr(self, name) for name in names}}

    @property
    def overrides(self) -> dict[str, Any]:
        names = ("lanes", "parts", "score_columns", "exchange_size")
        return {"wg_size": self.workgroup_size, **{name: getattr(self, name) for name in names}}


def fits(planner: Planner, call: AttentionCall) -> bool:
    if call.length > MAX_LENGTH:
        return False
    variant = _variant(planner, call, call.length)
    if variant is None:
        return False
    return _splits(tuning_of(planner, call.k_cache), call, variant).nbytes(call) <= planner.scratch_bytes


def prepare(planner: Planner, call: AttentionCall) -> None:
    lengths = range(1, min(MAX_LENGTH, call.length) + 1)
    for variant in dict.fromkeys(_variant(planner, call, length) for length in lengths):
        if variant is not None:
            planner.prepare(
                "attention/flash_decode", template=variant.template(call.k_cache.dtype), overrides=variant.overrides
            )
    prepare_reduction(planner, call, tuning_of(planner, call.k_cache).reduction)


def run(planner: Planner, call: AttentionCall) -> None:
    variant = _variant(planner, call, call.length)
    assert variant is not None, "fits() said that there is one"
    tuning = tuning_of(planner, call.k_cache)
    attend_split(
        planner,
        call,
        _splits(tuning, call, variant),
        tuning.reduction,
        "attention/flash_decode",
        ceil_div(call.length * call.group, variant.rows),
        template=variant.template(call.k_cache.dtype),
        overrides=variant.overrides,
    )


def _splits(tuning: Tuning, call: AttentionCall, variant: Variant) -> Splits:
    chunk = _chunk(tuning, call, variant)
    return Splits(chunk, ceil_div(call.context, chunk), _most_splits(tuning, call, variant))


def _chunk(tuning: Tuning, call: AttentionCall, variant: Variant) -> int:
    """Columns of a split: a power of two that leaves about ``tuning.workgroups`` workgroups."""
    if call.context <= min(tuning.single_chunk, variant.max_chunk):
        return variant.max_chunk
    wanted = call.context * _workgroups(call, variant) // tuning.workgroups
    return min(max(_power_of_two(wanted), tuning.min_chunk), variant.max_chunk)


def _most_splits(tuning: Tuning, call: AttentionCall, variant: Variant) -> int:
    """An upper bound of the splits of any context that the cache can hold."""
    wanted = 2 * tuning.workgroups // _workgroups(call, variant) + 2  # chunks are rounded down to powers of two
    return max(min(ceil_div(call.capacity, tuning.min_chunk), wanted), ceil_div(call.capacity, variant.max_chunk))


def _workgroups(call: AttentionCall, variant: Variant) -> int:
    """Those of one split."""
    return call.kv_heads * ceil_div(call.length * call.group, variant.rows)


def tuning_of(planner: Planner, cache: Tensor) -> Tuning:
    """The tuning for a cache's dtype on this device."""
    default = INT8_TUNING if cache.dtype == "int8" else TUNING
    return planner.tuning("attention/flash_decode", CPU_TUNING if planner.features.cpu else default)


def _variant(planner: Planner, call: AttentionCall, length: int) -> Variant | None:
    return variant_for(planner, length * call.group, call.k_cache)


def variant_for(planner: Planner, packed_rows: int, cache: Tensor) -> Variant | None:
    """The kernel for so many packed rows over a cache, or None if workgroup memory is too small."""
    tuning = tuning_of(planner, cache)
    size = min(tuning.workgroup_size, planner.limits.max_invocations)
    available = min(tuning.workgroup_bytes, planner.limits.max_workgroup_bytes)
    return choose_variant(tuning, packed_rows, cache.dims[3], cache.element.itemsize, size, available)


@cache
def choose_variant(
    tuning: Tuning, packed_rows: int, head_dim: int, itemsize: int, workgroup_size: int, available: int
) -> Variant | None:
    """The variant with the widest loads that ``available`` bytes of workgroup memory can hold, if there is one."""
    blocks = ceil_div(packed_rows, min(tuning.max_rows, workgroup_size // 8))  # eight scorers a row, at least
    rows = next(n for n in _ROW_COUNTS if n >= ceil_div(packed_rows, blocks))
    for width in (w for w in (16, 8, 4) if head_dim % w == 0):
        units = head_dim // width
        counts = (tuning.loads, *range(1, units + 1))
        loads = next(n for n in counts if units % n == 0 and units // n <= workgroup_size)
        if width > 4 and (width * itemsize > tuning.load_bytes or rows * width * loads > tuning.queries):
            continue
        lanes = units // loads
        parts = min(workgroup_size // lanes, tuning.tile_keys)
        variant = Variant(
            workgroup_size,
            rows,
            width,
            loads,
            lanes,
            parts,
            key_unroll=max(1, min(tuning.key_unroll, tuning.tile_keys // parts)),
            value_unroll=max(1, min(tuning.value_unroll, tuning.tile_keys // parts)),
            rows_per_round=1,
            max_chunk=tuning.max_chunk,
        )
        # Partial dot products may take five eighths; the sums take the same place, as many rows as it holds.
        while 32 * variant.exchange_size > 5 * available and max(variant.key_unroll, variant.parts // 8) > 1:
            if variant.key_unroll > 1:
                variant = replace(variant, key_unroll=variant.key_unroll // 2)
            else:
                variant = replace(variant, parts=variant.parts // 2)
        rounds = (
            n for n in range(rows, 0, -1) if replace(variant, rows_per_round=n).exchange_size <= variant.exchange_size
        )
        variant = replace(variant, rows_per_round=next(rounds))
        while variant.workgroup_bytes > available and variant.max_chunk > tuning.min_chunk:
            variant = replace(variant, max_chunk=variant.max_chunk // 2)
        if variant.workgroup_bytes <= available:
            return variant
    return None


def _power_of_two(n: int) -> int:
    """The largest power of two that is at most ``n``, or 0."""
    return 1 << n.bit_length() >> 1


def _round_up(n: int, step: int) -> int:
    return ceil_div(n, step) * step
