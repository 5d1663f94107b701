"""Attention of rows of many sequences, whose KV caches lie in pages of one pool.

Graph passes put it in the place of ``sdpa_with_kv_cache``, to make a program of one sequence one of many.
"""

from __future__ import annotations

import math

import numpy as np

from ....errors import InvalidInputError
from ...plan import Binding, Planner
from ...registry import op
from ...shapes import ceil_div
from ...sizes import like_first
from ...values import Tensor
from .. import reference
from ..cache_update.plan import update_caches
from ..call import AttentionCall, round_context
from ..checks import are_float32, check_cache
from ..flash_decode.plan import tuning_of, variant_for
from ..paging import Paging

NAME = "paged_sdpa"
Array = np.ndarray


def paged_sdpa_reference(
    q: Array,
    k: Array,
    v: Array,
    k_pages: Array,
    v_pages: Array,
    places: Array,
    block_tables: Array,
    scale: float | None,
    *,
    stored_as: str = "float32",
) -> Array:
    page_rows = k_pages.shape[1]
    positions, sequences = np.asarray(places).T
    at = np.asarray(block_tables)[sequences, positions // page_rows], positions % page_rows
    k_pages[at] = reference.as_stored(k[0], stored_as)
    v_pages[at] = reference.as_stored(v[0], stored_as)
    out = np.empty_like(q)
    for row, (position, sequence) in enumerate(zip(positions, sequences, strict=True)):
        seen = np.arange(position + 1)
        rows = np.asarray(block_tables)[sequence, seen // page_rows], seen % page_rows
        one = q[:, row : row + 1], k_pages[rows][None], v_pages[rows][None]
        out[:, row] = reference.custom_sdpa(*one, int(position), scale=scale)[:, 0]
    return out


@op(
    "et_webgpu.paged_sdpa.default",
    reference=paged_sdpa_reference,
    sizes=like_first,
    mutates=("k_pages", "v_pages"),
)
def paged_sdpa(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    places: Tensor,
    block_tables: Tensor,
    scale: float | None,
    out: Tensor,
) -> None:
    """Write the rows of k and v [1, T, Hkv, D] to their places, then attend with q [1, T, Hq, D].

    ``places`` and ``block_tables`` are those of ``Paging``; pools ``k_pages`` and ``v_pages`` are
    [pages, page_rows, Hkv, D] in float32, float16, or int8 with scales. A row sees the rows of its own sequence up to
    its position, those of this call included. ``scale`` is 1/sqrt(D) by default. InvalidInputError for a place outside
    of the tables, and for a page outside of the pools.
    """
    _check(planner, q, k, v, k_pages, v_pages, places, block_tables, out)
    planner.resize(out)
    paging = Paging(places, block_tables, k_pages.dims[1])
    context = _context(planner, paging, k_pages.dims[0])
    scale = 1 / math.sqrt(q.dims[3]) if scale is None else scale
    call = AttentionCall(q, k, v, k_pages, v_pages, 0, scale, out, context)
    update_caches(planner, [(k, k_pages), (v, v_pages)], None, paging)
    _attend(planner, call, paging)


def _attend(planner: Planner, call: AttentionCall, paging: Paging) -> None:
    """The kernels of ``flash_decode``: workgroups of packed rows of one token, over chunks of its context.

    As many tokens at a time as have room for the sums of their chunks, and as a grid has workgroups for.
    """
    tuning = tuning_of(planner, call.k_cache)
    variant = variant_for(planner, call.group, call.k_cache)
    planner.check(
        variant is not None, f"{NAME}: heads of {call.head_dim} elements need more workgroup memory than there is"
    )
    assert variant is not None
    template, reduction = variant.template(call.k_cache.dtype, paged=True), tuning.reduction.overrides(call)
    planner.prepare("attention/flash_decode", template=template, overrides=variant.overrides)
    planner.prepare("attention/merge_splits", template={"paged": True}, overrides=reduction)
    chunk, heads = variant.max_chunk, call.q.dims[2]
    token_bytes = 4 * heads * call.head_dim  # of the sums of a chunk
    blocks = ceil_div(call.group, variant.rows)
    in_grid = planner.limits.max_workgroups // max(call.group, blocks * call.kv_heads)
    most = max(1, min(in_grid, planner.scratch_bytes // (token_bytes * ceil_div(paging.capacity, chunk))))
    tokens, splits = min(call.length, most), ceil_div(call.context, chunk)
    sums = planner.scratch(token_bytes * min(most, call.q.max_dims[1]) * ceil_div(paging.capacity, chunk))
    stats = planner.scratch(8 * heads * min(most, call.q.max_dims[1]) * ceil_div(paging.capacity, chunk))
    shared: dict[str, Binding] = {"sums": sums, "stats": stats, "out": call.out, "places": paging.places}
    for first in range(0, call.length, max(tokens, 1)):
        count = min(tokens, call.length - first)
        shape = {
            "rows": count * call.group,
            "group_size": call.group,
            "kv_heads": call.kv_heads,
            "chunk": chunk,
            "splits": splits,
            "first_token": first,
        }
        planner.dispatch(
            "attention/flash_decode",
            (count * blocks * call.kv_heads, splits),
            {"q": call.q, **call.caches, **shared, "block_tables": paging.block_tables},
            {**shape, "row_blocks": count * blocks, "blocks_of_token": blocks, "scale": call.scale, **paging.params},
            template=template,
            overrides=variant.overrides,
        )
        if splits > 1:
            planner.dispatch(
                "attention/merge_splits",
                (count * call.group, call.kv_heads, ceil_div(call.vectors, reduction["lanes"])),
                shared,
                {**shape, "vectors": call.vectors},
                template={"paged": True},
                overrides=reduction,
            )


def _context(planner: Planner, paging: Paging, pages: int) -> int:
    """The longest context of a row, rounded up; places and pages that are not there are refused."""

    def longest(places: Array | None) -> int:
        if places is None or not places.size:
            return paging.capacity
        low, high = places.min(axis=0), places.max(axis=0)
        if low.min() < 0 or high[0] >= paging.capacity or high[1] >= paging.block_tables.dims[0]:
            raise InvalidInputError(
                f"{NAME}: places go from {low.tolist()} to {high.tolist()}, but there are "
                f"{paging.block_tables.dims[0]} sequences of up to {paging.capacity} rows"
            )
        return min(paging.capacity, round_context(int(high[0]) + 1))

    def known(tables: Array | None) -> bool:
        if tables is not None and (bad := tables[(tables < 0) | (tables >= pages)]).size:
            raise InvalidInputError(f"{NAME}: the pool has {pages} pages, 0 to {pages - 1}, not {bad[0]}")
        return True

    planner.inspect(paging.block_tables, known)
    context: int = planner.inspect(paging.places, longest)
    return context


def _check(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    places: Tensor,
    block_tables: Tensor,
    out: Tensor,
) -> None:
    planner.check(are_float32(q, k, v, out), f"{NAME} takes float32 tensors, not {[q, k, v, out]}")
    planner.check(
        all(t.rank == 4 for t in (q, k, v, k_pages, v_pages)) and q.dims[0] == 1,
        f"{NAME} takes [1, T, heads, D] and pools [pages, page_rows, heads, D], not {[q, k, v, k_pages, v_pages]}",
    )
    _, length, heads, head_dim = q.dims
    page_rows, kv_heads = k_pages.dims[1:3]
    planner.check(
        k.dims == v.dims == (1, length, kv_heads, head_dim)
        and k_pages.dims == v_pages.dims
        and k_pages.dims[3] == head_dim
        and k_pages.dtype == v_pages.dtype
        and kv_heads > 0
        and heads % kv_heads == 0
        and head_dim % 4 == 0,
        f"{NAME}: {q}, {k}, {v} do not go with pools {k_pages} and {v_pages}",
    )
    planner.check(page_rows > 0 and page_rows & (page_rows - 1) == 0, f"{NAME}: {page_rows} rows are no power of two")
    check_cache(planner, NAME, k_pages)
    planner.check(
        places.dtype == block_tables.dtype == "int32" and places.dims == (length, 2) and block_tables.rank == 2,
        f"{NAME}: places {places} must be [{length}, 2], and block tables {block_tables} [sequences, pages]; int32",
    )
