"""Reductions as passes over [outer, length, inner]: what is computed, and the dispatches for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..plan import Binding, Planner
from ..shapes import ceil_div
from ..values import Scratch, Tensor

WORKGROUP = 256
MOST_ROWS = 64  # rows of a workgroup that lie side by side
ELEMENTS = 8  # of a short row, for an invocation
LONG = 16  # elements of a chunk for an invocation, at least
BUSY = 512  # workgroups that keep a device busy
FINISH_WORKGROUP = 64
WORDS = ("float32", "int32", "bool")  # dtypes whose elements are words

# Bytes of a partial, by kind; 4 of the others.
PARTIAL_BYTES = {"largest": 8, "smallest": 8, "last_largest": 8, "last_smallest": 8, "lse": 8, "var": 16}
WITH_PLACES = ("largest", "smallest", "last_largest", "last_smallest")


@dataclass(frozen=True)
class Reduction:
    """What is computed; ``kind`` is one of partial.wgsl, the expressions are those of reduce.wgsl.

    ``p`` is a number for ``of`` and the kind, ``scale`` one for ``finish``.
    """

    kind: str
    compute: str = "f32"
    of: str = "v"
    finish: str = "v"
    p: float = 0.0
    scale: float = 1.0

    @property
    def partial_bytes(self) -> int:
        return PARTIAL_BYTES.get(self.kind, 4)


@dataclass(frozen=True)
class Pass:
    """[outer, length, inner] -> [outer, inner]; the largest sizes say which kernels there may be.

    ``side_by_side``: rows of a workgroup, at most, where neighbours own neighbouring rows. With ``enough`` workgroups,
    no row is cut into chunks; else chunks are made until there are about ``busy``. ``wide``: each invocation owns four
    neighbouring rows, of a tensor.
    """

    outer: int
    length: int
    inner: int
    most_length: int
    most_inner: int
    side_by_side: int = MOST_ROWS
    enough: int = BUSY
    busy: int = BUSY
    wide: bool = False

    @property
    def rows(self) -> int:
        return self.outer * self.inner

    @property
    def across(self) -> bool:
        return self.most_inner > 1

    @property
    def lanes(self) -> int:
        """Invocations of a workgroup that share a row."""
        if not self.across:
            return min(WORKGROUP, power_of_two(ceil_div(self.length, ELEMENTS)))
        rows = min(self.side_by_side, power_of_two(self.inner)) // (4 if self.wide else 1)
        return min(WORKGROUP // rows, power_of_two(ceil_div(self.length, 4)))

    @property
    def blocks(self) -> int:
        """Workgroups, if no row is cut into chunks."""
        return ceil_div(self.rows // (4 if self.wide else 1) * self.lanes, WORKGROUP)

    @property
    def chunk(self) -> int:
        """Elements of the chunks of a row."""
        least = self.lanes * LONG
        cut = 0 < self.blocks < self.enough
        wanted = min(ceil_div(self.busy, self.blocks), self.length // least) if cut else 1
        return 4 * ceil_div(self.length, 4 * wanted) if wanted > 1 else max(4, 4 * ceil_div(self.length, 4))

    @property
    def chunks(self) -> int:
        return max(1, ceil_div(self.length, self.chunk))

    @property
    def may_have_chunks(self) -> bool:
        return self.most_length >= 2 * LONG * (WORKGROUP // MOST_ROWS if self.across else WORKGROUP)


def power_of_two(n: int) -> int:
    """The least one that is not below ``n``."""
    return 1 << max(int(n) - 1, 0).bit_length()  # sizes may be numbers of NumPy


def passes_over(x: Tensor, axes: Collection[int]) -> list[Pass]:
    """One pass for every group of neighbours among ``axes``, largest first."""
    live, most = list(x.dims), list(x.max_dims)
    groups: list[list[int]] = []
    for axis in sorted(axes):
        between = most[groups[-1][-1] + 1 : axis] if groups else []
        if groups and all(n == 1 for n in between):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    groups.sort(key=lambda g: (-math.prod(most[a] for a in g), -g[0]))
    found = []
    for group in groups:
        first, last = group[0], group[-1] + 1
        found.append(
            Pass(
                math.prod(live[:first]),
                math.prod(live[first:last]),
                math.prod(live[last:]),
                math.prod(most[first:last]),
                math.prod(most[last:]),
            )
        )
        for axis in group:
            live[axis] = most[axis] = 1
    return found or [Pass(x.numel, 1, 1, 1, 1)]


def along(x: Tensor, axis: int) -> Pass:
    """The pass over one dimension; that of a scalar is its only element."""
    dims, most = (x.dims, x.max_dims) if x.rank else ((1,), (1,))
    after = axis + 1
    return Pass(math.prod(dims[:axis]), dims[axis], math.prod(dims[after:]), most[axis], math.prod(most[after:]))


@dataclass
class Outs:
    """Where results go: the reduced numbers, and their places or means."""

    first: Tensor | None = None
    second: Tensor | None = None
    results: str = field(init=False)

    def __post_init__(self) -> None:
        self.results = "both" if self.first and self.second else "first" if self.first else "second"

    @property
    def tensors(self) -> list[Tensor]:
        return [t for t in (self.first, self.second) if t is not None]


def dispatch(planner: Planner, reduction: Reduction, x: Tensor, axes: Collection[int], outs: Outs) -> None:
    """Reduce ``x`` over ``axes``."""
    dispatch_passes(planner, reduction, x, passes_over(x, axes), outs)


def dispatch_passes(planner: Planner, reduction: Reduction, x: Tensor, passes: Sequence[Pass], outs: Outs) -> None:
    """Reduce ``x`` by one pass after the other."""
    source: Tensor | Scratch = x
    direct = all(t.dtype in WORDS for t in outs.tensors)
    for each in passes[:-1]:
        source = partials(planner, reduction, source, each)
    if direct:
        _run(planner, reduction, source, passes[-1], outs)
    else:
        n = passes[-1].rows
        found = planner.scratch(n * reduction.partial_bytes)
        _run(planner, reduction, source, passes[-1], found)
        finish(planner, reduction, found, n, outs)


def partials(planner: Planner, reduction: Reduction, source: Tensor | Scratch, each: Pass) -> Scratch:
    """The partials [rows] of a pass."""
    found = planner.scratch(each.rows * reduction.partial_bytes)
    _run(planner, reduction, source, each, found)
    return found


def chunk_partials(planner: Planner, reduction: Reduction, source: Tensor | Scratch, each: Pass, chunk: int) -> Scratch:
    """The partials [rows, chunks] of chunks of ``chunk`` elements of every row."""
    chunks = max(1, ceil_div(each.length, chunk))
    found = planner.scratch(each.rows * chunks * reduction.partial_bytes)
    _one(planner, reduction, source, each, chunk, found)
    return found


def prepare(
    planner: Planner, reduction: Reduction, source: Tensor | Scratch, each: Pass, to: Scratch | Outs | None
) -> None:
    """Have the kernels made that live sizes of a pass may need; ``to`` is None for partials."""
    may_be_wide = isinstance(source, Tensor) and each.across and each.most_inner >= 4
    for wide in (False, True) if may_be_wide else (False,):
        _prepare(planner, reduction, source, each.across, to, wide)
        if each.may_have_chunks:
            _prepare(planner, reduction, source, each.across, None, wide)
    if each.may_have_chunks:
        _prepare(planner, reduction, None, False, to)


def _run(planner: Planner, reduction: Reduction, source: Tensor | Scratch, each: Pass, to: Scratch | Outs) -> None:
    """A pass, in one dispatch or, by chunks, in two."""
    prepare(planner, reduction, source, each, to)
    each = replace(each, wide=isinstance(source, Tensor) and each.across and each.inner > 0 and each.inner % 4 == 0)
    chunks = each.chunks
    if chunks == 1:
        _one(planner, reduction, source, each, each.chunk, to)
        return
    found = chunk_partials(planner, reduction, source, each, each.chunk)
    after = Pass(each.rows, chunks, 1, 1, 1)
    _one(planner, reduction, found, after, 4 * ceil_div(chunks, 4), to)


def _template(
    reduction: Reduction, source: Tensor | Scratch | None, across: bool, to: Scratch | Outs | None, wide: bool
) -> dict[str, Any]:
    outs = to if isinstance(to, Outs) else Outs()
    return {
        "kind": reduction.kind,
        "compute": reduction.compute,
        "x": source.dtype if isinstance(source, Tensor) else "partial",
        "of": reduction.of if isinstance(source, Tensor) else "v",
        "across": across,
        "wide": wide,
        "final": isinstance(to, Outs),
        "finish": reduction.finish if isinstance(to, Outs) else "v",
        "results": outs.results if isinstance(to, Outs) else "first",
        "out": outs.first.dtype if outs.first else "float32",
        "second": outs.second.dtype if outs.second else "int32",
    }


def _prepare(
    planner: Planner,
    reduction: Reduction,
    source: Tensor | Scratch | None,
    across: bool,
    to: Scratch | Outs | None,
    wide: bool = False,
) -> None:
    template = _template(reduction, source, across, to, wide)
    planner.prepare("reduce/reduce", template=template, overrides={"wg_size": WORKGROUP})


def _one(
    planner: Planner, reduction: Reduction, source: Tensor | Scratch, each: Pass, chunk: int, to: Scratch | Outs
) -> None:
    chunks = max(1, ceil_div(each.length, chunk))
    bindings: dict[str, Binding] = {"x": source}
    if isinstance(to, Scratch):
        bindings["out"] = to
    else:
        bindings |= {name: t for name, t in (("out", to.first), ("second", to.second)) if t is not None}
    planner.dispatch(
        "reduce/reduce",
        planner.grid_1d(each.blocks * chunks, 1),
        bindings,
        {
            "rows": each.rows,
            "length": each.length,
            "inner": each.inner,
            "chunk": chunk,
            "chunks": chunks,
            "lanes": each.lanes,
            "p": reduction.p,
            "scale": reduction.scale,
        },
        template=_template(reduction, source, each.across, to, each.wide),
        overrides={"wg_size": WORKGROUP},
    )


def finish(planner: Planner, reduction: Reduction, found: Scratch, n: int, outs: Outs) -> None:
    """The results of ``n`` partials, in the dtypes of ``outs``."""
    assert outs.first is not None
    bindings: dict[str, Binding] = {"x": found, "out": outs.first}
    if outs.second is not None:
        bindings["second"] = outs.second
    planner.dispatch(
        "reduce/finish",
        planner.grid_1d(ceil_div(n, 4), FINISH_WORKGROUP),
        bindings,
        {"n": n, "p": reduction.p, "scale": reduction.scale},
        template=_finish_template(reduction, outs),
        overrides={"wg_size": FINISH_WORKGROUP},
    )


def prepare_finish(planner: Planner, reduction: Reduction, outs: Outs) -> None:
    """Have the kernel of ``finish`` made."""
    template = _finish_template(reduction, outs)
    planner.prepare("reduce/finish", template=template, overrides={"wg_size": FINISH_WORKGROUP})


def _finish_template(reduction: Reduction, outs: Outs) -> dict[str, Any]:
    assert outs.first is not None
    return {
        "kind": reduction.kind,
        "compute": reduction.compute,
        "finish": reduction.finish,
        "results": outs.results,
        "out": outs.first.dtype,
        "second": outs.second.dtype if outs.second else "int32",
    }
