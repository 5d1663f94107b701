"""Elements of a tensor that index tensors name, which every operator that reads by indices comes down to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..plan import Binding, Planner
from ..reindex.strided import MAX_RANK, coalesce, innermost_first
from ..shapes import ceil_div, row_major_strides
from ..values import Dims, Scratch, Tensor

WORKGROUP = 64
OVERRIDES = {"wg_size": WORKGROUP}
GATHER_WORKGROUP = 256
TURNS = 2  # times that an invocation makes 16 bytes of elements
BUSY = 1024  # workgroups that keep a device busy
MOST = 4  # index tensors of one dispatch: there are eight storage buffers at least
_WORD = 4  # bytes


@dataclass(frozen=True)
class Pick:
    """An index tensor, at ``strides`` along the dimensions of a result: which of ``size`` elements ``step`` apart."""

    index: Tensor | Scratch
    strides: Dims
    size: int
    step: int


def gather(planner: Planner, x: Tensor, x_strides: Dims, picks: Sequence[Pick], wraps: bool, out: Tensor) -> None:
    """``out`` holds elements of ``x``: at ``x_strides`` along its dimensions, and where all ``picks`` say.

    Negative indices count from the end if they ``wrap``; those out of range are clamped.
    """
    planner.check(x.dtype == out.dtype, f"{x} and {out} must have the same dtype")
    if len(picks) > MOST:
        picks = [combined(planner, out.dims, picks, wraps)]
    lanes = max(1, _WORD // x.element.itemsize)
    # Units of 16 bytes; words of packed elements; 16 bytes of single elements: what runs allow.
    wide, words, quads = ("vec4<u32>", 1, False), ("u32", 1, False), ("u32", lanes, True)
    for unit, width, quad in (wide, words, quads) if lanes > 1 else (wide, quads):
        template = {"unit": unit, "lanes": width, "quads": quad, "count": len(picks)}
        planner.prepare("indexing/gather", overrides={"wg_size": GATHER_WORKGROUP}, template=template)
    dims, (x_strides, *strides) = coalesce(out.dims, x_strides, *(p.strides for p in picks))
    planner.check(len(dims) <= MAX_RANK, f"{out} takes {len(dims)} dimensions; at most {MAX_RANK} work")
    steps = [p.step for p in picks]
    ways = ((wide, 4 * lanes), *(((words, lanes),) if lanes > 1 else ()), (quads, 1))
    (unit, width, quad), times = next(way for way in ways if are_runs(way[1], dims, [x_strides], strides, steps))
    if times > 1:
        dims = (*dims[:-1], dims[-1] // times)
        x_strides, steps = (*(s // times for s in x_strides[:-1]), 1), [s // times for s in steps]
    bound: dict[str, Binding] = {f"index{k}": p.index for k, p in enumerate(picks)}
    n = math.prod(dims)
    units = ceil_div(n, 4 * width if quad else 1)
    busy = planner.tuning("indexing/gather", BUSY)
    turns = TURNS if quad and units >= busy * TURNS * GATHER_WORKGROUP else 1
    params = {"x_strides": innermost_first(x_strides, 0), **_index_params(dims, strides, picks, steps, wraps)}
    planner.dispatch(
        "indexing/gather",
        planner.grid_1d(ceil_div(units, turns), GATHER_WORKGROUP),
        {"x": x, "out": out, **bound},
        params | ({"turns": turns} if quad else {}),
        overrides={"wg_size": GATHER_WORKGROUP},
        template={"unit": unit, "lanes": width, "quads": quad, "count": len(picks)},
    )


def combined(
    planner: Planner, dims: Dims, picks: Sequence[Pick], wraps: bool, base_strides: Dims | None = None
) -> Pick:
    """One pick in place of several: the sums of what they say, and of ``base_strides``, in a buffer of its own.

    That has as many elements as the dimensions of ``dims`` along which any of the picks moves.
    """
    bases = base_strides or (0,) * len(dims)
    views = list(zip(bases, *(p.strides for p in picks), strict=True))
    moved = tuple(n if any(views[axis]) else 1 for axis, n in enumerate(dims))
    addresses = planner.scratch(math.prod(moved) * _WORD)
    for first in range(0, len(picks), MOST):
        part = picks[first : first + MOST]
        sizes, (base, *strides) = coalesce(moved, bases, *(p.strides for p in part))
        planner.check(len(sizes) <= MAX_RANK, f"indices of {len(sizes)} dimensions; at most {MAX_RANK} work")
        bound: dict[str, Binding] = {f"index{k}": p.index for k, p in enumerate(part)}
        planner.dispatch(
            "indexing/addresses",
            planner.grid_1d(math.prod(moved), WORKGROUP),
            {"addresses": addresses, **bound},
            {
                "base_strides": innermost_first(base, 0),
                **_index_params(sizes, strides, part, [p.step for p in part], wraps),
            },
            overrides=OVERRIDES,
            template={"count": len(part), "more": first > 0},
        )
    size = 1 + sum((p.size - 1) * p.step for p in picks)
    size += sum((n - 1) * step for n, step in zip(moved, bases, strict=True))
    along = tuple(s if n > 1 else 0 for s, n in zip(row_major_strides(moved), moved, strict=True))
    return Pick(addresses, along, max(size, 1), 1)


def are_runs(
    times: int, dims: Dims, moved: Sequence[Dims], index_strides: Sequence[Dims], steps: Sequence[int]
) -> bool:
    """Whether what is ``moved`` between tensors consists of aligned runs of ``times`` elements."""
    if times == 1:
        return True
    if not dims or any(s[-1] != 1 for s in moved) or any(s[-1] for s in index_strides):
        return False
    return not any(n % times for n in (dims[-1], *(n for s in moved for n in s[:-1]), *steps))


def _index_params(
    dims: Dims, strides: Sequence[Dims], picks: Sequence[Pick], steps: Sequence[int], wraps: bool
) -> dict[str, object]:
    unused = [0] * (MOST - len(picks))
    return {
        **{f"strides{k}": innermost_first(each, 0) for k, each in enumerate(strides)},
        "dims": innermost_first(dims, 1),
        "sizes": [*(p.size for p in picks), *unused],
        "steps": [*steps, *unused],
        "rank": len(dims),
        "n": math.prod(dims),
        "wraps": int(wraps),
    }
