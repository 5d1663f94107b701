"""Attention that a program writes out: whether it is causal attention over a whole cache, whatever its calls are.

Programs scale, mask, and repeat heads in many ways. So its calls are run by their references on random queries and
caches, at positions all over the context, and held against what ``paged_sdpa`` computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError
from ..ops.values import Tensor
from .batch_positions import Positions
from .build import OpCall
from .reference import REFUSALS

_MOST_ELEMENTS = 1 << 25  # of scores times head elements, for all positions that are looked at
_FEWEST = 6
_TOLERANCE = 1e-4  # of float64: masks are as large as float32 allows, and some scales are rounded


@dataclass(frozen=True)
class WrittenRows:
    """What a call writes to a cache: ``rows``, from the position on, along ``axis`` of the cache."""

    cache: Tensor
    rows: Tensor
    axis: int


@dataclass(frozen=True)
class Region:
    """The calls from caches to ``out``; ``q`` [.., S, .., D] is cut along ``q_axis``, ``out`` along ``out_axis``."""

    calls: Sequence[OpCall]
    q: Tensor
    q_axis: int
    out: Tensor
    out_axis: int
    k: WrittenRows
    v: WrittenRows


def written_rows(
    call: OpCall, cache: Tensor, rows: Tensor, rows_axis: int, positions: Positions, context_len: int
) -> WrittenRows | None:
    """What a call writes, if all that it does is to store ``rows`` in ``cache`` from the position on."""
    random = np.random.default_rng(0)
    axis: int | None = None
    most = min(positions.most, context_len)
    try:
        for start, count in ((context_len - 1, 1), (0, most), (context_len - most, most)):
            dims = [*rows.max_dims]
            dims[rows_axis] = count
            before, source = _random(random, cache, cache.max_dims), _random(random, rows, dims)
            read = {v.id: v for v in (*call.reads, *call.inputs)}.values()
            values = positions.evaluate([v.id for v in read if positions.is_made(v)], start, count)
            values |= {cache.id: before.copy(), rows.id: source}
            positions.run([call], values)
            after = values[cache.id if call.mutated else call.writes[0].id]
            if after.shape != before.shape:
                return None
            axis = _changed_axis(before, after) if axis is None else axis
            if axis is None or not _is_stored(before, after, axis, np.moveaxis(source, rows_axis, 0), start):
                return None
    except (InvalidInputError, *REFUSALS):
        return None
    assert axis is not None
    return WrittenRows(cache, rows, axis)


def _random(random: np.random.Generator, tensor: Tensor, dims: Sequence[int]) -> np.ndarray:
    """Elements that the dtype of a tensor can hold, in the form in which references take them."""
    if tensor.element.is_float:
        return random.standard_normal(dims)
    return random.integers(0, 100, dims).astype(tensor.element.numpy)


def _changed_axis(before: np.ndarray, after: np.ndarray) -> int | None:
    """The one dimension along which only a single slice has changed."""
    places = [np.unique(each) for each in np.nonzero(before != after)]
    single = [axis for axis, found in enumerate(places) if len(found) == 1 and before.shape[axis] > 1]
    return single[0] if len(single) == 1 else None


def _is_stored(before: np.ndarray, after: np.ndarray, axis: int, rows: np.ndarray, start: int) -> bool:
    wanted = np.moveaxis(before.copy(), axis, 0)
    count = len(rows)
    if wanted[start : start + count].size != rows.size:
        return False
    wanted[start : start + count] = rows.reshape(wanted[start : start + count].shape)
    return np.array_equal(np.moveaxis(after, axis, 0), wanted)


def heads_of(dims: Sequence[int], axis: int, head_dim: int) -> int | None:
    """How many heads of ``head_dim`` a row has along ``axis``, if its elements lie by head."""
    elements = math.prod(n for i, n in enumerate(dims) if i != axis)
    return elements // head_dim if elements and elements % head_dim == 0 else None


def causal_scale(region: Region, positions: Positions, context_len: int) -> float | None:
    """The scale of a region that is causal attention; None if it is anything else.

    Looks at as many positions as take a moment: of long contexts the first, the last, and some between.
    """
    random = np.random.default_rng(0)
    head_dim = region.out.max_dims[-1]
    if region.q.max_dims[-1] != head_dim or region.q_axis == region.q.rank - 1:
        return None
    caches = {w.cache.id: _cache(random, w) for w in (region.k, region.v)}
    rows = [_by_head(caches[w.cache.id], w.axis, head_dim) for w in (region.k, region.v)]
    heads, kv_heads = (heads_of(region.q.max_dims, region.q_axis, head_dim), rows[0].shape[1])
    if heads is None or heads % kv_heads or rows[0].shape != rows[1].shape or len(rows[0]) < context_len:
        return None
    k, v = (np.repeat(each, heads // kv_heads, axis=1) for each in rows)
    scale: float | None = None
    try:
        for start, count in _looks(random, positions.most, context_len, heads * head_dim):
            q, out = _run(region, positions, caches, random, start, count)
            scale = _scale(q[0], out[0], k[:2], v[:2]) if scale is None else scale
            if scale is None or not np.allclose(out, _causal(q, k, v, start, scale), _TOLERANCE, _TOLERANCE):
                return None
    except (InvalidInputError, *REFUSALS):
        return None
    return scale


def _looks(random: np.random.Generator, most: int, context_len: int, elements: int) -> list[tuple[int, int]]:
    """Where to look: starts and numbers of rows; first at position 1, where two rows are seen."""
    looks = max(_FEWEST, min(context_len, _MOST_ELEMENTS // (context_len * elements)))
    ends = {0, context_len - 1, context_len // 2, *random.permutation(context_len)[:looks].tolist()}
    found = [(1, 1)] if context_len > 1 else [(0, 1)]
    for end in sorted(ends):
        count = int(random.integers(1, min(most, end + 1, 8) + 1))
        found.append((end + 1 - count, count))
    return found


def _cache(random: np.random.Generator, written: WrittenRows) -> np.ndarray:
    return random.standard_normal(written.cache.max_dims)


def _by_head(array: np.ndarray, axis: int, head_dim: int) -> np.ndarray:
    """[rows, heads, head_dim]."""
    moved = np.moveaxis(array, axis, 0)
    return moved.reshape(len(moved), -1, head_dim)


def _run(
    region: Region,
    positions: Positions,
    caches: dict[int, np.ndarray],
    random: np.random.Generator,
    start: int,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Random queries and what the region makes of them, both [count, heads, head_dim]."""
    dims = [*region.q.max_dims]
    dims[region.q_axis] = count
    q = random.standard_normal(dims)
    read = {v.id: v for call in region.calls for v in (*call.reads, *call.inputs)}.values()
    values = positions.evaluate([v.id for v in read if positions.is_made(v)], start, count)
    values |= {**caches, region.q.id: q}
    positions.run(region.calls, values)
    out = values[region.out.id]
    head_dim = region.out.max_dims[-1]
    return _by_head(q, region.q_axis, head_dim), _by_head(out, region.out_axis, head_dim)


def _scale(q: np.ndarray, out: np.ndarray, k: np.ndarray, v: np.ndarray) -> float | None:
    """The scale with which a row [heads, head_dim] that sees two rows [2, heads, head_dim] weighs them."""
    if len(k) < 2:
        return 1.0 / math.sqrt(q.shape[-1])  # of one row, nothing depends on it
    weights, *_ = np.linalg.lstsq(v[:, 0].T, out[0], rcond=None)
    if np.any(weights <= 0):
        return None
    difference = float(q[0] @ (k[1, 0] - k[0, 0]))
    return float(np.log(weights[1] / weights[0]) / difference)


def _causal(q: np.ndarray, k: np.ndarray, v: np.ndarray, start: int, scale: float) -> np.ndarray:
    scores = np.einsum("rhd,chd->rhc", q, k) * scale
    seen = np.arange(len(k)) <= start + np.arange(len(q))[:, None]
    scores = np.where(seen[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("rhc,chd->rhd", weights / weights.sum(axis=-1, keepdims=True), v)
