"""Sorted pairs of ranks and indices, by bitonic networks: the dispatches."""

from __future__ import annotations

from dataclasses import dataclass

from ..plan import Binding, Planner
from ..reduce.passes import Pass, power_of_two
from ..shapes import ceil_div
from ..values import Scratch, Tensor

TILE = 2048  # pairs that a workgroup sorts: all of the smallest device's workgroup memory
WORKGROUP = 256
EXCHANGE_WORKGROUP = 64
PAIR_BYTES = 8
MOST_KEPT = 512  # of a tile, where only the first pairs of a row are wanted: fewer are sorted in every round
_ALL_ONES = 0xFFFFFFFF


@dataclass(frozen=True)
class Sorted:
    """Pairs [rows, length], of which all or the first are sorted."""

    pairs: Scratch
    length: int


def sorted_pairs(planner: Planner, x: Tensor, each: Pass, largest_first: bool, count: int) -> Sorted:
    """The pairs of ``x`` along the length of a pass, of which the first ``count`` are wanted."""
    _prepare(planner, x, each)
    if each.length <= TILE or count <= MOST_KEPT:
        return _first(planner, x, each, largest_first, count)
    chunks = ceil_div(each.length, TILE)
    length = chunks * TILE
    pairs = planner.scratch(PAIR_BYTES * each.rows * length)
    _blocks(planner, x, each.rows, each.length, each.inner, TILE, pairs, last_level=TILE, flip=largest_first)
    level = 2 * TILE
    while level < 2 * length:
        _exchange(planner, pairs, each.rows, length, level, level // 8, mirrored=True)
        stride = level // 16
        while stride >= TILE:
            _exchange(planner, pairs, each.rows, length, level, stride // 4, mirrored=False)
            stride //= 8
        _blocks(planner, None, each.rows, length, 1, TILE, pairs, tail=stride)
        level *= 2
    return Sorted(pairs, length)


def _first(planner: Planner, x: Tensor, each: Pass, largest_first: bool, count: int) -> Sorted:
    """In rounds, the first pairs of every tile, until they are of one tile."""
    source: Tensor | Scratch = x
    length, inner = each.length, each.inner
    while True:
        chunk = min(TILE, power_of_two(length))
        chunks, keep = max(1, ceil_div(length, chunk)), min(max(count, 1), chunk)
        pairs = planner.scratch(PAIR_BYTES * each.rows * chunks * keep)
        flip = largest_first and source is x
        _blocks(planner, source, each.rows, length, inner, keep, pairs, chunk=chunk, last_level=chunk, flip=flip)
        if chunks == 1:
            return Sorted(pairs, keep)
        source, length, inner = pairs, chunks * keep, 1


def _prepare(planner: Planner, x: Tensor, each: Pass) -> None:
    """Have the kernels made that live sizes may need."""
    planner.prepare("sort/block", template={"source": x.dtype}, overrides={"wg_size": WORKGROUP})
    if each.most_length > TILE:
        for source in ("pairs", "in_place"):
            planner.prepare("sort/block", template={"source": source}, overrides={"wg_size": WORKGROUP})
        for mirrored in (False, True):
            planner.prepare("sort/exchange", template={"mirrored": mirrored}, overrides={"wg_size": EXCHANGE_WORKGROUP})


def _blocks(
    planner: Planner,
    source: Tensor | Scratch | None,
    rows: int,
    length: int,
    inner: int,
    keep: int,
    pairs: Scratch,
    *,
    chunk: int = TILE,
    last_level: int = 0,
    tail: int = 0,
    flip: bool = False,
) -> None:
    chunks = ceil_div(length, chunk)
    bindings: dict[str, Binding] = {"pairs": pairs}
    if source is not None:
        bindings["x"] = source
    kind = source.dtype if isinstance(source, Tensor) else "in_place" if source is None else "pairs"
    planner.dispatch(
        "sort/block",
        planner.grid_1d(ceil_div(rows * chunks * chunk, TILE), 1),
        bindings,
        {
            "rows": rows,
            "length": length,
            "inner": inner,
            "chunks": chunks,
            "chunk": chunk,
            "first_level": 2,
            "last_level": last_level,
            "tail": tail,
            "keep": keep,
            "flip": _ALL_ONES if flip else 0,
        },
        template={"source": kind},
        overrides={"wg_size": WORKGROUP},
    )


def _exchange(
    planner: Planner, pairs: Scratch, rows: int, length: int, level: int, stride: int, *, mirrored: bool
) -> None:
    groups = ceil_div(length, level) * level // 8
    planner.dispatch(
        "sort/exchange",
        planner.grid_1d(rows * groups, EXCHANGE_WORKGROUP),
        {"pairs": pairs},
        {"rows": rows, "length": length, "groups": groups, "stride": stride},
        template={"mirrored": mirrored},
        overrides={"wg_size": EXCHANGE_WORKGROUP},
    )
