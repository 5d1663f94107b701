"""Attention that a program writes out: whether it is causal attention over a whole cache, whatever its calls are.

Programs scale, mask, and repeat heads in many ways. So its calls are run by their references on random queries and
caches, at positions all over the context, and held against what ``paged_sdpa`` computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UnsupportedProgramError
from ..ops.values import Tensor
from .batch_positions import Positions
from .build import OpCall
from .reference import REFUSALS

_MOST_ELEMENTS = 1 << 24  # of scores times head elements, for all positions that are looked at
_FEWEST = 2
_TOLERANCE = 1e-6  # of float64
_SIZES = (0.0, 60.0, -20.0, 200.0)  # what all scores of a look have in common


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
    except (UnsupportedProgramError, *REFUSALS):
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

    Looks at as many positions as take a moment: of long contexts the first, the last, and some between. Scores are of
    several sizes, so that one sees where they are bounded.
    """
    random = np.random.default_rng(0)
    head_dim = region.out.max_dims[-1]
    if region.q.max_dims[-1] != head_dim or region.q_axis == region.q.rank - 1:
        return None
    heads, kv_heads = (heads_of(t.max_dims, axis, head_dim) for t, axis in _tensors(region))
    length = region.k.cache.max_dims[region.k.axis]
    if heads is None or kv_heads is None or heads % kv_heads or length < context_len:
        return None
    common = 2 * random.standard_normal((kv_heads, head_dim))  # of all keys, so that scores may be large, and close
    k = random.standard_normal((length, kv_heads, head_dim)) + common
    if region.v.cache.max_dims[region.v.axis] != length or math.prod(region.v.cache.max_dims) != k.size:
        return None
    v = random.standard_normal(k.shape) if region.v.cache is not region.k.cache else k
    caches = {w.cache.id: _like(rows, w.cache.max_dims, w.axis) for w, rows in ((region.k, k), (region.v, v))}
    k, v, common = (np.repeat(each, heads // kv_heads, axis=-2) for each in (k, v, common))
    along = common / np.square(common).sum(axis=-1, keepdims=True)
    scale: float | None = None
    try:
        calls = _of_caches(region, positions, caches)
        for i, (start, count) in enumerate(_looks(random, positions.most, context_len, heads * head_dim)):
            q = random.standard_normal((count, heads, head_dim))
            q = q / head_dim if scale is None else q + along * (_SIZES[i % len(_SIZES)] / scale)
            out = _run(region, calls, positions, caches, q, start)
            scale = _scale(q[0], out[0], k[:2], v[:2]) if scale is None else scale
            if scale is None or not np.allclose(out, _causal(q, k, v, start, scale), _TOLERANCE, _TOLERANCE):
                return None
    except (UnsupportedProgramError, *REFUSALS):
        return None
    return scale


def _tensors(region: Region) -> tuple[tuple[Tensor, int], tuple[Tensor, int]]:
    return (region.q, region.q_axis), (region.k.cache, region.k.axis)


def _looks(random: np.random.Generator, most: int, context_len: int, elements: int) -> list[tuple[int, int]]:
    """Where to look: starts and numbers of rows; first at position 1, where two rows are seen."""
    looks = max(_FEWEST, min(context_len, _MOST_ELEMENTS // (context_len * elements)))
    ends = {0, context_len - 1, context_len // 2, *random.permutation(context_len)[:looks].tolist()}
    found = [(1, 1)] if context_len > 1 else [(0, 1)]
    for end in sorted(ends):
        count = int(random.integers(1, min(most, end + 1, 8) + 1))
        found.append((end + 1 - count, count))
    return found


def _by_head(array: np.ndarray, axis: int, head_dim: int) -> np.ndarray:
    """[rows, heads, head_dim]."""
    moved = np.moveaxis(array, axis, 0)
    return moved.reshape(len(moved), -1, head_dim)


def _like(rows: np.ndarray, dims: Sequence[int], axis: int) -> np.ndarray:
    """``rows`` [rows, heads, head_dim] in these dims, with the rows along ``axis``."""
    others = [n for i, n in enumerate(dims) if i != axis]
    return np.moveaxis(rows.reshape(len(rows), *others), 0, axis)


def _of_caches(region: Region, positions: Positions, values: dict[int, np.ndarray]) -> list[OpCall]:
    """Compute what follows from caches alone, once for all positions. Returns the other calls."""
    others: list[OpCall] = []
    for call in region.calls:
        if all(v.id in values or positions.is_constant(v) for v in (*call.reads, *call.inputs)):
            positions.run([call], values)
        else:
            others.append(call)
    return others


def _run(
    region: Region,
    calls: Sequence[OpCall],
    positions: Positions,
    caches: Mapping[int, np.ndarray],
    q: np.ndarray,
    start: int,
) -> np.ndarray:
    """What the region makes of queries from position ``start`` on; both [count, heads, head_dim].

    ``calls``: those whose results are not among ``caches`` yet.
    """
    read = {v.id: v for call in calls for v in (*call.reads, *call.inputs)}.values()
    values = positions.evaluate([v.id for v in read if positions.is_made(v)], start, len(q))
    values |= {**caches, region.q.id: _like(q, region.q.max_dims, region.q_axis)}
    positions.run(calls, values)
    return _by_head(values[region.out.id], region.out_axis, q.shape[-1])


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
