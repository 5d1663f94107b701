"""Values that go to where indices say: what every operator that writes by indices comes down to.

An invocation makes elements of the result, each of all its sources in their order, so results repeat bit for bit, and
the last of several values that are put in one place stays. Routes, for n sources and N elements of the result:

* ``walk``: an invocation looks at all sources of its line, of which there are few;
* ``owner``: a table tells the last source of each address; for values that are put, in O(n + N);
* ``sorted``: sources are sorted by their address, in O(n log² n + N log n). Of many with one address, there is a total
  for every 1,024 of them, so that an element of the result takes few steps whatever the addresses are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..reindex.strided import MAX_RANK, coalesce, innermost_first
from ..shapes import ceil_div, row_major_strides
from ..values import Dims, Scratch, Tensor
from .gathering import OVERRIDES, WORKGROUP

FEW = 32  # sources that an invocation looks at in less time than a table takes
MOST = 2048  # that it may look at: software adapters end an invocation, in silence, after 65,535 turns of loops
FEW_LOOKS = 2**18  # the same for all invocations together
CHUNK = 1024  # sorted sources of which a total is made, as kernels have it
_WORD = 4  # bytes


@dataclass(frozen=True)
class Reduction:
    """What becomes of values with one address: the last of them, a sum, …

    ``include_self``: what was there counts, too. ``alpha``: what values are multiplied by before they are added.
    """

    name: str = "set"
    include_self: bool = True
    alpha: float = 1


@dataclass(frozen=True)
class Sources:
    """Where the values for each element of a result are, by strides along the dimensions of that.

    An element of the result has an address below ``size``. The sources of its line are ``count`` elements of ``index``,
    ``step`` apart; those of its address give it their values, which are ``value_step`` apart.
    Where an index is beyond ``bounds`` there are no sources. ``index_strides`` None: all lines have the same sources.
    """

    index: Tensor | Scratch
    size: int
    count: int
    address_strides: Dims
    value_strides: Dims
    values: Tensor | Scratch | int | float
    value_step: int = 1
    index_strides: Dims | None = None
    step: int = 1
    bounds: Dims | None = None
    wraps: bool = False


def scatter(
    planner: Planner,
    x: Tensor,
    lines: Sources,
    reduction: Reduction,
    out: Tensor,
    table: Callable[[], Sources] | None = None,
    total: int = 0,
) -> None:
    """``out`` is ``x`` with values put or added where their addresses say; ``out`` may be ``x``.

    ``table``, where ``lines`` have sources of their own: makes one line of all ``total`` sources, whose addresses are
    elements of ``out``.
    """
    planner.check(x.dtype == out.dtype, f"{x} and {out} must have the same dtype")
    values = lines.values
    alike = not isinstance(values, Tensor) or values.dtype == x.dtype
    planner.check(alike, f"the values {values} must have the dtype of {x}")
    addresses, count = (lines.size, lines.count) if table is None else (out.numel, total)
    few = lines.count <= FEW or out.numel * lines.count <= FEW_LOOKS
    room = planner.limits.max_binding_bytes
    possible = {
        "walk": lines.count <= MOST,
        "owner": reduction.name == "set" and addresses * _WORD <= room,
        "sorted": 2 * _WORD * count <= room,
    }
    planner.check(any(possible.values()), f"there are too many indices for {x}: {count}")
    order = ("walk", "owner", "sorted") if few else ("owner", "sorted", "walk")
    route = planner.choose("scatter", {name: possible[name] for name in order})
    template = _template(x, lines, reduction, out)
    planner.prepare("indexing/scatter", overrides=OVERRIDES, template={**template, "found": "walk"})
    if route == "walk":
        _dispatch(planner, x, lines, lines.index, reduction, out, {**template, "found": route})
        return
    one_line = lines if table is None else table()
    found = _owners(planner, one_line) if route == "owner" else _sorted(planner, one_line)
    _dispatch(planner, x, one_line, found, reduction, out, {**template, "found": route})


def _template(x: Tensor, sources: Sources, reduction: Reduction, out: Tensor) -> dict[str, Any]:
    return {
        "reduce": reduction.name,
        "dtype": x.dtype,
        "lanes": max(1, _WORD // x.element.itemsize),
        "include_self": reduction.include_self or reduction.name == "set",
        "in_place": out is x,
        "number": isinstance(sources.values, int | float),
    }


def _owners(planner: Planner, sources: Sources) -> Scratch:
    """For every address, 1 + the number of its last source."""
    owners = planner.scratch(sources.size * _WORD)
    quads = ceil_div(sources.size, 4)
    planner.dispatch("fill/fill", planner.grid_1d(quads, 64), {"out": owners}, {"quads": quads, "word": 0})
    planner.dispatch(
        "indexing/owner",
        planner.grid_1d(sources.count, WORKGROUP),
        {"owners": owners, "addresses": sources.index},
        {"n": sources.count, "size": sources.size, "wraps": int(sources.wraps)},
        overrides=OVERRIDES,
    )
    return owners


def _sorted(planner: Planner, sources: Sources) -> Scratch:
    """Address and number of every source, in the order of addresses, then of numbers."""
    n = sources.count
    before: Tensor | Scratch = sources.index
    pairs = [planner.scratch(2 * _WORD * n) for _ in range(2)]
    passes = max(1, (n - 1).bit_length())
    planner.prepare("indexing/merge", overrides=OVERRIDES, template={"first": False})
    for i in range(passes):
        planner.dispatch(
            "indexing/merge",
            planner.grid_1d(n, WORKGROUP),
            {"before": before, "after": pairs[i % 2]},
            {"n": n, "run": 1 << i, "size": sources.size, "wraps": int(sources.wraps)},
            overrides=OVERRIDES,
            template={"first": i == 0},
        )
        before = pairs[i % 2]
    assert isinstance(before, Scratch)
    return before


def _dispatch(
    planner: Planner,
    x: Tensor,
    sources: Sources,
    found: Tensor | Scratch,
    reduction: Reduction,
    out: Tensor,
    template: dict[str, Any],
) -> None:
    many = template["lanes"] if reduction.name == "set" else 4
    dims, bounds = out.dims, sources.bounds or out.dims
    kept = tuple(1 if step else n for n, step in zip(dims, sources.address_strides, strict=True))
    lines = tuple(0 if step else s for s, step in zip(row_major_strides(kept), sources.address_strides, strict=True))
    views = (sources.address_strides, sources.index_strides or (0,) * out.rank, sources.value_strides, lines)
    if bounds == dims:
        dims, views = coalesce(dims, *views)  # type: ignore[assignment]
        bounds = dims
    planner.check(len(dims) <= MAX_RANK, f"{out} takes {len(dims)} dimensions; at most {MAX_RANK} work")
    shared = bounds == dims and bool(dims) and dims[-1] % many == 0 and not views[0][-1] and not views[1][-1]
    bindings: dict[str, Binding] = {"out": out, "sources": found}
    if out is not x:
        bindings["x"] = x
    if isinstance(sources.values, Tensor | Scratch):
        bindings["values"] = sources.values
    alpha = reduction.alpha if x.element.is_float else int(reduction.alpha)
    number = {"number": word_of(sources.values, x), "alpha": alpha}
    if template["found"] == "sorted" and reduction.name != "set":
        bindings["totals"] = _totals(planner, sources, found, kept, number, template)
    planner.dispatch(
        "indexing/scatter",
        planner.grid_1d(ceil_div(out.numel, many), WORKGROUP),
        bindings,
        {
            "dims": innermost_first(dims, 1),
            "bounds": innermost_first(bounds, 1),
            "address_strides": innermost_first(views[0], 0),
            "source_strides": innermost_first(views[1], 0),
            "value_strides": innermost_first(views[2], 0),
            "line_strides": innermost_first(views[3], 0),
            "rank": len(dims),
            "n": out.numel,
            "lines": math.prod(kept),
            "count": sources.count,
            "source_step": sources.step,
            "value_step": sources.value_step,
            "together": many if shared else 1,
            "lane_step": views[2][-1] if shared else 0,
            "size": sources.size,
            "wraps": int(sources.wraps),
            **number,
        },
        overrides=OVERRIDES,
        template=template,
    )


def _totals(
    planner: Planner,
    sources: Sources,
    found: Tensor | Scratch,
    kept: Dims,
    number: Mapping[str, Any],
    template: dict[str, Any],
) -> Scratch:
    """For every whole chunk of sorted sources with one address, and every line, what its values are together."""
    dims, (strides,) = coalesce(kept, sources.value_strides)
    chunks, lines = sources.count // CHUNK, math.prod(kept)
    totals = planner.scratch(chunks * lines * _WORD)
    bindings: dict[str, Binding] = {"sources": found, "totals": totals}
    if isinstance(sources.values, Tensor | Scratch):
        bindings["values"] = sources.values
    planner.dispatch(
        "indexing/totals",
        planner.grid_1d(chunks * lines, WORKGROUP),
        bindings,
        {
            "dims": innermost_first(dims, 1),
            "value_strides": innermost_first(strides, 0),
            "rank": len(dims),
            "n": chunks * lines,
            "lines": lines,
            "value_step": sources.value_step,
            **number,
        },
        overrides=OVERRIDES,
        template={name: template[name] for name in ("reduce", "dtype", "lanes", "number")},
    )
    return totals


def word_of(value: Any, x: Tensor) -> int:
    """A number as an element of ``x`` has it, in the low bits of a word; 0 for what is no number."""
    if not isinstance(value, int | float):
        return 0
    if x.dtype == "bool":
        return int(bool(value))
    kind = x.element.numpy
    with np.errstate(all="ignore"):
        element = np.asarray(value if x.element.is_float else int(value)).astype(kind)
    return int.from_bytes(element.tobytes(), "little")
