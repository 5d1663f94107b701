"""Rows that see a context each: a workgroup for every token and split of its context, by the kernels of decode.

A kernel's workgroups beyond a token's own context have nothing to do. A token whose context is one split is done then;
the splits of others are put together by merge_splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...plan import Binding, Planner
from ...shapes import ceil_div
from ...values import Scratch, Tensor
from ..call import AttentionCall, Rotation, round_context
from ..flash_decode import plan as flash_decode
from ..flash_decode_subgroups import plan as flash_decode_subgroups
from ..merge_splits.plan import Reduction
from ..paging import Paging


@dataclass(frozen=True)
class TokenKernel:
    """A kernel whose workgroups attend with ``rows`` packed rows of one token over a split of its context."""

    name: str
    rows: int
    template: Mapping[str, Any]  # without ``listed``
    step: int  # splits are of whole steps
    single_chunk: int  # contexts up to this are one split
    max_chunk: int | None
    workgroups: int  # as many as splits should leave
    reduction: Reduction
    overrides: Mapping[str, Any] = field(default_factory=dict)
    rotation: Rotation | None = None  # that it does itself; then each row must be of a sequence of its own

    def blocks(self, call: AttentionCall) -> int:
        """Workgroups of a token and split, for one KV head."""
        return ceil_div(call.group, self.rows)

    def splits(self, call: AttentionCall, longest: int, total: int) -> Splits:
        """Of contexts that are ``total`` rows long together, and at most ``longest``.

        With many tokens there are workgroups enough without splits, unless a context is much longer than others.
        """
        most = longest if self.max_chunk is None else self.max_chunk
        if longest <= min(self.single_chunk, most):
            return Splits(min(self.single_chunk, most), 1)
        wanted = max(1, self.workgroups // (call.kv_heads * self.blocks(call)))
        chunk = min(ceil_div(ceil_div(total, wanted), self.step), max(1, most // self.step)) * self.step
        return Splits(chunk, ceil_div(longest, chunk))

    def most_splits(self, call: AttentionCall, capacity: int) -> int:
        """Of one token, in any step."""
        wanted = max(1, self.workgroups // (call.kv_heads * self.blocks(call))) + 1
        if self.max_chunk is not None:
            wanted = max(wanted, ceil_div(capacity, self.max_chunk))
        return min(ceil_div(capacity, self.step), wanted)


@dataclass(frozen=True)
class Splits:
    """Splits of ``chunk`` columns; ``count`` of them hold the longest context."""

    chunk: int
    count: int


@dataclass(frozen=True)
class Tokens:
    """Up to ``count`` tokens: those of ``places``, which is a list of rows or holds all of a step's."""

    places: Tensor | Scratch
    count: int
    listed: bool


def rounded(longest: int, total: int, count: int) -> tuple[int, int]:
    """The longest context and the sum of ``count`` of them, rounded up so that both stay for many steps."""
    return round_context(longest), round_context(ceil_div(total, count)) * count


def subgroups_kernel(
    planner: Planner, call: AttentionCall, paging: Paging, rotation: Rotation | None = None
) -> TokenKernel | None:
    """flash_decode_subgroups, which does a ``rotation`` itself, where the device can run it."""
    variant = flash_decode_subgroups.variant_of(planner, call, 1)
    buffers = 6 + len(call.caches)
    if rotation is not None:
        buffers += 4
        if variant is None or variant.rows < call.group or not flash_decode_subgroups.rotates_vectors(rotation):
            return None
    if variant is None or planner.limits.max_storage_buffers < buffers:
        return None
    tuning = flash_decode_subgroups.tuning_of(planner, call)
    return TokenKernel(
        "attention/flash_decode_subgroups",
        variant.rows,
        {**variant.template(call, rotation is not None), **variant.over_pages(paging.page_rows)},
        max(tuning.min_chunk, variant.keys),
        tuning.single_chunk,
        None,
        tuning.workgroups,
        tuning.reduction,
        rotation=rotation,
    )


def plain_kernel(planner: Planner, call: AttentionCall) -> TokenKernel | None:
    """flash_decode, where the device can run it."""
    tuning = flash_decode.tuning_of(planner, call.k_cache)
    variant = flash_decode.variant_for(planner, call.group, call.k_cache)
    if variant is None or planner.limits.max_storage_buffers < 6 + len(call.caches):
        return None
    return TokenKernel(
        "attention/flash_decode",
        variant.rows,
        variant.template(call.k_cache.dtype, paged=True),
        min(tuning.min_chunk, variant.max_chunk),
        tuning.single_chunk,
        variant.max_chunk,
        tuning.workgroups,
        tuning.reduction,
        variant.overrides,
    )


def prepare(planner: Planner, call: AttentionCall, kernel: TokenKernel, listed: bool) -> None:
    template, overrides = {**kernel.template, "listed": listed}, kernel.reduction.overrides(call)
    planner.prepare(kernel.name, template=template, overrides=kernel.overrides)
    planner.prepare("attention/merge_splits", template=_merged(listed), overrides=overrides)


def run(
    planner: Planner,
    call: AttentionCall,
    paging: Paging,
    kernel: TokenKernel,
    tokens: Tokens,
    splits: Splits,
    q: Tensor | Scratch,
) -> None:
    """Attend with ``q``, as many tokens at a time as have room for their sums, and as a grid has workgroups for."""
    blocks, split_bytes = kernel.blocks(call), 4 * call.q.dims[2] * call.head_dim
    in_grid = planner.limits.max_workgroups // max(call.group, blocks * call.kv_heads)
    most = kernel.most_splits(call, paging.capacity)
    token_bytes = split_bytes * max(most, splits.count)
    # As much as any step needs, so that the memory stays where it is from step to step.
    room = token_bytes * max(1, min(planner.scratch_bytes // token_bytes, call.q.max_dims[1]))
    sums, stats = planner.scratch(room), planner.scratch(2 * room // call.head_dim)
    at_a_time = max(1, min(in_grid, tokens.count if splits.count == 1 else room // (split_bytes * splits.count)))
    shared: dict[str, Binding] = {"sums": sums, "stats": stats, "out": call.out, "places": tokens.places}
    bindings: dict[str, Binding] = {"q": q, **call.caches, **shared, "block_tables": paging.block_tables}
    params: dict[str, Any] = {"scale": call.scale, "blocks_of_token": blocks, **paging.params}
    if kernel.name == "attention/flash_decode_subgroups":
        params["half_vectors"] = 0 if kernel.rotation is None else kernel.rotation.half // 4
    if kernel.rotation is not None:
        bindings |= {"k": call.k, "v": call.v, **kernel.rotation.tables}
    reduction = kernel.reduction.overrides(call)
    for first in range(0, tokens.count, at_a_time):
        count = min(at_a_time, tokens.count - first)
        shape = {
            "rows": count * call.group,
            "group_size": call.group,
            "kv_heads": call.kv_heads,
            "chunk": splits.chunk,
            "splits": splits.count,
            "first_token": first,
        }
        planner.dispatch(
            kernel.name,
            (count * blocks * call.kv_heads, splits.count),
            bindings,
            {**shape, "row_blocks": count * blocks, **params},
            template={**kernel.template, "listed": tokens.listed},
            overrides=kernel.overrides,
        )
        if splits.count > 1:
            planner.dispatch(
                "attention/merge_splits",
                (count * call.group, call.kv_heads, ceil_div(call.vectors, reduction["lanes"])),
                shared,
                {**shape, "vectors": call.vectors},
                template=_merged(tokens.listed),
                overrides=reduction,
            )


def _merged(listed: bool) -> dict[str, bool]:
    return {"paged": True, "listed": listed}
