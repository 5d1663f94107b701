"""The flash_decode_subgroups route: up to 8 new tokens, caches of every dtype, where all subgroups have one size.

As in flash_decode the context is split over workgroups, and K and V are read once a KV head. Here every subgroup
goes through its part of a chunk alone, with nothing to wait for but memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from ...plan import Binding, Planner
from ...shapes import ceil_div
from ..call import AttentionCall, Rotation
from ..flash_decode.plan import MAX_LENGTH
from ..merge_splits.plan import REDUCTION, Reduction, Splits, attend_split, prepare_reduction


@dataclass(frozen=True)
class Tuning:
    """What the kernel's speed depends on, not its result."""

    subgroups: int = 4  # of a workgroup
    load_bytes: int = 16  # of a load of K or V; narrower where a head is no multiple of it
    unroll: int = 4  # loads of K, and of V, that are on their way: a power of two
    max_rows: int = 8  # packed rows of a workgroup; more rows are other workgroups
    registers: int = 64  # elements of q that an invocation keeps, and as many sums
    min_chunk: int = 64
    single_chunk: int = 256  # contexts up to this are one split, which needs no second kernel
    workgroups: int = 512  # chunks are as long as leaves about this many
    reduction: Reduction = REDUCTION


TUNING = Tuning()
INT8_TUNING = Tuning(load_bytes=8, unroll=8, workgroups=396)


@dataclass(frozen=True)
class Variant:
    """The kernel for one number of rows and one cache: how a subgroup divides its work."""

    subgroup: int  # invocations
    subgroups: int
    rows: int  # packed rows of a workgroup: a power of two
    width: int  # elements of a load
    units: int  # loads that a head is long
    loads: int  # of them by one lane
    lanes: int  # that hold a row of the cache: a power of two
    unroll: int

    @property
    def keys(self) -> int:
        """Rows of the cache that a workgroup reads at a time."""
        return self.subgroups * self.subgroup // self.lanes * self.unroll

    @property
    def workgroup_bytes(self) -> int:
        return 4 * self.subgroups * self.rows * (self.units * self.width + 4)

    def template(self, call: AttentionCall, rotates: bool) -> dict[str, Any]:
        rotation = call.rotation.kind if call.rotation and rotates else ""
        over_pages = {"paged": False, "together": False, "listed": False}
        return {"cache": call.k_cache.dtype, "rotation": rotation, **over_pages, **vars(self)}

    def over_pages(self, page_rows: int) -> dict[str, Any]:
        """Template values for pages of so many rows: whether what a subgroup reads at a time lies in one of them."""
        return {"paged": True, "together": page_rows % (self.subgroup // self.lanes * self.unroll) == 0}


def fits(planner: Planner, call: AttentionCall) -> bool:
    if call.length > MAX_LENGTH:
        return False
    variant = variant_of(planner, call, call.length)
    return (
        variant is not None and _splits(tuning_of(planner, call), call, variant).nbytes(call) <= planner.scratch_bytes
    )


def rotates(planner: Planner, call: AttentionCall) -> bool:
    """Whether the kernel can rotate q and k, and write the caches, itself: one workgroup has all rows of a chunk."""
    variant = variant_of(planner, call, call.length)
    return variant is not None and _rotates(planner, call, variant, call.length)


def prepare(planner: Planner, call: AttentionCall) -> None:
    made: dict[tuple[Variant, bool], None] = {}
    for length in range(1, min(MAX_LENGTH, call.length) + 1):
        variant = variant_of(planner, call, length)
        if variant is not None:
            made[variant, _rotates(planner, call, variant, length)] = None
    for variant, rotated in made:
        planner.prepare("attention/flash_decode_subgroups", template=variant.template(call, rotated))
    if made:
        prepare_reduction(planner, call, tuning_of(planner, call).reduction)


def run(planner: Planner, call: AttentionCall) -> None:
    variant = variant_of(planner, call, call.length)
    assert variant is not None, "fits() said that there is one"
    tuning, rotation = tuning_of(planner, call), call.rotation
    more: dict[str, Binding] = {}
    if rotation is not None:
        more = {"k": call.k, "v": call.v, **rotation.bindings}
    attend_split(
        planner,
        call,
        _splits(tuning, call, variant),
        tuning.reduction,
        "attention/flash_decode_subgroups",
        ceil_div(call.length * call.group, variant.rows),
        template=variant.template(call, rotation is not None),
        more=more,
        more_params={"half_vectors": rotation.half // 4 if rotation else 0},
    )


def _rotates(planner: Planner, call: AttentionCall, variant: Variant, length: int) -> bool:
    rotation = call.rotation
    return (
        rotation is not None
        and length * call.group <= variant.rows
        and rotates_vectors(rotation)
        and planner.limits.max_storage_buffers >= 9 + len(call.caches)
    )


def rotates_vectors(rotation: Rotation) -> bool:
    """Whether four elements in a row turn with four in a row, or among each other."""
    return rotation.kind == "pairs" or rotation.half % 4 == 0


def tuning_of(planner: Planner, call: AttentionCall) -> Tuning:
    return planner.tuning("attention/flash_decode_subgroups", INT8_TUNING if call.k_cache.dtype == "int8" else TUNING)


def _splits(tuning: Tuning, call: AttentionCall, variant: Variant) -> Splits:
    """Chunks as many as leave about ``tuning.workgroups`` workgroups, each of whole steps of a workgroup."""
    wanted = max(1, tuning.workgroups // (call.kv_heads * ceil_div(call.length * call.group, variant.rows)))
    step = max(tuning.min_chunk, variant.keys)
    chunk = ceil_div(ceil_div(call.context, wanted), step) * step
    if call.context <= tuning.single_chunk:
        chunk = tuning.single_chunk
    most = min(ceil_div(call.capacity, step), wanted)
    return Splits(chunk, ceil_div(call.context, chunk), most)


def variant_of(planner: Planner, call: AttentionCall, length: int) -> Variant | None:
    """The kernel for so many tokens, or None if the device has no subgroups of one size, or too little memory."""
    features = planner.features
    if not features.subgroups or features.subgroup_min_size != features.subgroup_max_size:
        return None
    if planner.limits.max_storage_buffers < 4 + len(call.caches):
        return None
    variant = choose_variant(
        tuning_of(planner, call),
        features.subgroup_max_size,
        length * call.group,
        call.head_dim,
        call.k_cache.element.itemsize,
    )
    small = variant.workgroup_bytes <= planner.limits.max_workgroup_bytes
    return variant if small and variant.subgroup * variant.subgroups <= planner.limits.max_invocations else None


@cache
def choose_variant(tuning: Tuning, subgroup: int, packed_rows: int, head_dim: int, itemsize: int) -> Variant:
    """The most rows, then the widest loads, for which an invocation's queries and sums fit in its registers."""
    most = min(_power_of_two(packed_rows), tuning.max_rows)
    widths = [w for w in (16, 8, 4) if head_dim % w == 0 and (w == 4 or w * itemsize <= tuning.load_bytes)]

    def variant(rows: int, width: int) -> Variant:
        units = head_dim // width
        loads = ceil_div(units, subgroup)
        lanes = _power_of_two(ceil_div(units, loads))
        return Variant(subgroup, tuning.subgroups, rows, width, units, loads, lanes, tuning.unroll)

    variants = [variant(most >> i, width) for i in range(most.bit_length()) for width in widths]
    return next((v for v in variants if v.rows * v.width * v.loads <= tuning.registers), variants[-1])


def _power_of_two(n: int) -> int:
    """The smallest power of two that is at least ``n``."""
    return 1 << (n - 1).bit_length()
