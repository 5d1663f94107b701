"""Attention of rows of many sequences, whose KV caches lie in pages of one pool.

Graph passes put it in the place of ``sdpa_with_kv_cache``, to make a program of one sequence one of many.
"""

from __future__ import annotations

import math

import numpy as np

from ...plan import Planner
from ...registry import op
from ...rope import check_halves, check_pairs
from ...rope import reference as rope
from ...sizes import like_first
from ...values import Tensor
from .. import reference
from ..call import AttentionCall, Rotation
from ..checks import are_float32, check_cache
from ..paging import Paging
from .routes import attend

NAME, ROPE_NAME = "paged_sdpa", "rope_paged_sdpa"
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


def rope_paged_sdpa_reference(
    q: Array,
    k: Array,
    v: Array,
    cos: Array,
    sin: Array,
    halves: bool,
    k_pages: Array,
    v_pages: Array,
    places: Array,
    block_tables: Array,
    scale: float | None,
    *,
    stored_as: str = "float32",
) -> Array:
    angles = cos[places[:, 0]], sin[places[:, 0]]
    q, k = rope.apply_rotary_emb_hf(q, k, *angles, 0) if halves else rope.apply_rotary_emb(q, k, *angles)
    return paged_sdpa_reference(q, k, v, k_pages, v_pages, places, block_tables, scale, stored_as=stored_as)


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
    _check(planner, NAME, q, k, v, k_pages, v_pages, places, block_tables, out)
    planner.resize(out)
    call = _call(q, k, v, k_pages, v_pages, scale, out)
    attend(planner, NAME, call, Paging(places, block_tables, k_pages.dims[1]))


@op(
    "et_webgpu.rope_paged_sdpa.default",
    reference=rope_paged_sdpa_reference,
    sizes=like_first,
    mutates=("k_pages", "v_pages"),
    reads_rows_of=("cos", "sin"),
)
def rope_paged_sdpa(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    halves: bool,
    k_pages: Tensor,
    v_pages: Tensor,
    places: Tensor,
    block_tables: Tensor,
    scale: float | None,
    out: Tensor,
) -> None:
    """``apply_rotary_emb`` of q and k, or ``_hf`` with ``halves``, by each row's position, then ``paged_sdpa``.

    A row at position p takes row p of cos and sin: [rows, D/2], or [rows, R] with ``halves``. All else is as in those
    operators. InvalidInputError for a position that has no angles, too.
    """
    _check(planner, ROPE_NAME, q, k, v, k_pages, v_pages, places, block_tables, out)
    kind, check = ("halves", check_halves) if halves else ("pairs", check_pairs)
    half = check(planner, ROPE_NAME, q, k, cos, sin, None, [q, k])
    planner.resize(out)
    rotated_q = planner.scratch(q.max_nbytes)
    call = _call(q, k, v, k_pages, v_pages, scale, out, Rotation(cos, sin, None, kind, half, rotated_q))
    attend(planner, ROPE_NAME, call, Paging(places, block_tables, k_pages.dims[1]))


def _call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    scale: float | None,
    out: Tensor,
    rotation: Rotation | None = None,
) -> AttentionCall:
    """The call as kernels' plans see it; positions and contexts are those of ``Paging``."""
    scale = 1 / math.sqrt(q.dims[3]) if scale is None else scale
    return AttentionCall(q, k, v, k_pages, v_pages, 0, scale, out, context=0, rotation=rotation)


def _check(
    planner: Planner,
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    places: Tensor,
    block_tables: Tensor,
    out: Tensor,
) -> None:
    planner.check(are_float32(q, k, v, out), f"{name} takes float32 tensors, not {[q, k, v, out]}")
    planner.check(
        all(t.rank == 4 for t in (q, k, v, k_pages, v_pages)) and q.dims[0] == 1,
        f"{name} takes [1, T, heads, D] and pools [pages, page_rows, heads, D], not {[q, k, v, k_pages, v_pages]}",
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
        f"{name}: {q}, {k}, {v} do not go with pools {k_pages} and {v_pages}",
    )
    planner.check(page_rows > 0 and page_rows & (page_rows - 1) == 0, f"{name}: {page_rows} rows are no power of two")
    check_cache(planner, name, k_pages)
    planner.check(
        places.dtype == block_tables.dtype == "int32" and places.dims == (length, 2) and block_tables.rank == 2,
        f"{name}: places {places} must be [{length}, 2], and block tables {block_tables} [sequences, pages]; int32",
    )
