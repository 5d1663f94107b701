"""Strided views, and the kernel that copies one into another: every reindexing operator comes down to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..plan import Binding, Planner
from ..shapes import ceil_div, row_major_strides
from ..values import Dims, Scratch, SymInt, Tensor

MAX_RANK = 8
WORKGROUP = 256  # fewer workgroups: a device begins about one a clock, which bounds copies of 16 bytes an invocation
KERNEL = "reindex/strided_copy"
QUADS = "reindex/strided_quads"
OVERRIDES = {"wg_size": WORKGROUP}
_WORD = 4  # bytes
_QUAD = 16  # bytes of a vec4<u32>, and what buffers are padded to


def coalesce(dims: Sequence[int], *strides: Sequence[int]) -> tuple[Dims, list[Dims]]:
    """The same index space in the fewest dimensions.

    Drops sizes of 1, and merges neighbours that every view walks as one.
    """
    kept: list[int] = []
    merged: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(dims):
        if size == 1:
            continue
        if kept and all(m[-1] == s[axis] * size for m, s in zip(merged, strides, strict=True)):
            kept[-1] *= size
            for m, s in zip(merged, strides, strict=True):
                m[-1] = s[axis]
        else:
            kept.append(size)
            for m, s in zip(merged, strides, strict=True):
                m.append(s[axis])
    return tuple(kept), [tuple(m) for m in merged]


def innermost_first(numbers: Sequence[int], fill: int) -> list[int]:
    """Dims or strides as the kernels take them: eight numbers, the innermost dimension first."""
    return [*reversed(numbers), *(fill,) * (MAX_RANK - len(numbers))]


@dataclass(frozen=True)
class Copy:
    """Element ``i`` (a multi-index below ``dims``) of a view of ``x`` goes to that of a view of ``out``.

    Strides and bases are in elements. ``start``, where there is one, is a live index along a dimension of
    ``x`` that has ``start_size`` elements; it moves the view of ``x`` by ``start * start_stride``. A negative
    one counts from the end.
    """

    dims: Dims
    x_strides: Dims
    out_strides: Dims
    x_base: int = 0
    out_base: int = 0
    start: SymInt | None = None
    start_size: int = 0
    start_stride: int = 0

    def coalesced(self) -> Copy:
        dims, (x_strides, out_strides) = coalesce(self.dims, self.x_strides, self.out_strides)
        return replace(self, dims=dims, x_strides=x_strides, out_strides=out_strides)

    def widened(self, times: int) -> Copy | None:
        """The same copy in elements ``times`` as large, if both views consist of aligned runs of them."""
        if not self.dims or self.x_strides[-1] != 1 or self.out_strides[-1] != 1:
            return None
        steps = (*self.x_strides[:-1], *self.out_strides[:-1], self.x_base, self.out_base, self.start_stride)
        if any(n % times for n in (*steps, self.dims[-1])):
            return None
        return Copy(
            dims=(*self.dims[:-1], self.dims[-1] // times),
            x_strides=(*(s // times for s in self.x_strides[:-1]), 1),
            out_strides=(*(s // times for s in self.out_strides[:-1]), 1),
            x_base=self.x_base // times,
            out_base=self.out_base // times,
            start=self.start,
            start_size=self.start_size,
            start_stride=self.start_stride // times,
        )


def dispatch_copy(planner: Planner, x: Tensor, out: Tensor, copy: Copy) -> None:
    """Run ``copy``, whose view of ``out`` is all of ``out``, in order; an invocation makes 16 bytes.

    They are a unit of both views where these are aligned. Else they are put together: of two aligned units where x lies
    in runs of 16 bytes, or element by element.
    """
    copy = checked(planner, x, out, copy)
    planner.check(_is_whole(copy, out.numel), f"the view of {out} is not all of it, in order")
    prepare_copy(planner, x, copy.start is not None)
    lanes = max(1, _WORD // x.element.itemsize)
    if wide := copy.widened(4 * lanes):
        _dispatch(planner, x, out, wide, "vec4<u32>", 1, 1)
        return
    n = math.prod(copy.dims)
    bindings: dict[str, Binding] = {"x": x, "out": out}
    params: dict[str, Any] = {
        "dims": innermost_first(copy.dims, 1),
        "x_strides": innermost_first(copy.x_strides, 0),
        "rank": len(copy.dims),
        "n": n,
        "x_base": copy.x_base,
    }
    _add_start(copy, bindings, params)
    runs = bool(copy.dims) and copy.x_strides[-1] == 1 and copy.dims[-1] % (4 * lanes) == 0
    if runs:
        params["last"] = max(ceil_div(x.nbytes, _QUAD), 1) - 1
    planner.dispatch(
        QUADS,
        planner.grid_1d(ceil_div(n, 4 * lanes), WORKGROUP),
        bindings,
        params,
        overrides=OVERRIDES,
        template={"lanes": lanes, "runs": runs, "live": copy.start is not None},
    )


def prepare_copy(planner: Planner, x: Tensor, live: bool = False) -> None:
    """Have what copies of ``x`` may run made at load: live sizes decide which units fit."""
    _prepare(planner, "vec4<u32>", 1, 1, live)
    for runs in (False, True):
        template = {"lanes": max(1, _WORD // x.element.itemsize), "runs": runs, "live": live}
        planner.prepare(QUADS, overrides=OVERRIDES, template=template)


def _is_whole(copy: Copy, numel: int) -> bool:
    """Whether the view of a result of ``numel`` elements is all of it, in order."""
    n = math.prod(copy.dims)
    return n == numel and copy.out_base == 0 and (n == 0 or copy.out_strides == row_major_strides(copy.dims))


def dispatch_copies(planner: Planner, out: Tensor, parts: Sequence[tuple[Tensor, Copy]]) -> None:
    """Run several copies, one after the other, into views of ``out``, which together are all of it.

    Elements narrower than a word, where a view does not consist of whole words, are put together in a scratch buffer
    of one word for each element, since invocations must not share words.
    """
    copies = [(x, checked(planner, x, out, copy)) for x, copy in parts]
    copies = [(x, copy) for x, copy in copies if math.prod(copy.dims)]
    lanes = max(1, _WORD // out.element.itemsize)
    units = {("vec4<u32>", 1, 1), ("u32", 1, 1), ("u32", lanes, lanes), ("u32", lanes, 1), ("u32", 1, lanes)}
    for unit, x_lanes, out_lanes in units:
        _prepare(planner, unit, x_lanes, out_lanes, live=False)
    found = [_units(x, copy, out.numel) for x, copy in copies]
    if None not in found:
        for (x, _), each in zip(copies, found, strict=True):
            assert each is not None
            _dispatch(planner, x, out, *each)
        return
    words = planner.scratch(out.numel * _WORD)
    for x, copy in copies:
        _dispatch(planner, x, words, copy, "u32", lanes, 1)
    _dispatch(planner, words, out, Copy((out.numel,), (1,), (1,)), "u32", 1, lanes)


def contiguous(planner: Planner, x: Tensor, dims: Dims, strides: Dims) -> Scratch:
    """A buffer with the elements of ``x`` along ``strides``, one after the other, for this call."""
    copy = Copy(dims, strides, row_major_strides(dims)).coalesced()
    planner.check(len(copy.dims) <= MAX_RANK, f"moving {x} takes {len(copy.dims)} dimensions; at most {MAX_RANK} work")
    lanes = max(1, _WORD // x.element.itemsize)
    result = planner.scratch(math.prod(dims) * x.element.itemsize)
    _dispatch(planner, x, result, replace(copy, out_strides=row_major_strides(copy.dims)), "u32", lanes, lanes)
    return result


def checked(planner: Planner, x: Tensor, out: Tensor, copy: Copy) -> Copy:
    """``copy`` in the fewest dimensions, which are no more than kernels take."""
    planner.check(x.dtype == out.dtype, f"{x} and {out} must have the same dtype")
    copy = copy.coalesced()
    planner.check(
        len(copy.dims) <= MAX_RANK,
        f"moving {x} to {out} takes {len(copy.dims)} dimensions; at most {MAX_RANK} work",
    )
    return copy


def _units(x: Tensor, copy: Copy, numel: int) -> tuple[Copy, str, int, int] | None:
    """A coalesced copy in the widest units that it allows; None where it would share words of a result of ``numel``."""
    size = x.element.itemsize
    lanes = max(1, _WORD // size)
    if wide := copy.widened(_QUAD // size):
        return wide, "vec4<u32>", 1, 1
    if lanes == 1:
        return copy, "u32", 1, 1
    if words := copy.widened(lanes):
        return words, "u32", 1, 1
    return (copy, "u32", lanes, lanes) if _is_whole(copy, numel) else None


def _prepare(planner: Planner, unit: str, x_lanes: int, out_lanes: int, live: bool) -> None:
    template = {"unit": unit, "x_lanes": x_lanes, "out_lanes": out_lanes, "live": live}
    planner.prepare(KERNEL, overrides=OVERRIDES, template=template)


def dispatch_whole_copy(planner: Planner, x: Tensor | Scratch, out: Tensor) -> None:
    """Copy all of ``x`` as it lies in memory, padding included."""
    units = ceil_div(x.nbytes, _QUAD)
    _dispatch(planner, x, out, Copy((units,), (1,), (1,)), "vec4<u32>", 1, 1)


def _dispatch(
    planner: Planner, x: Tensor | Scratch, out: Tensor | Scratch, copy: Copy, unit: str, x_lanes: int, out_lanes: int
) -> None:
    n = math.prod(copy.dims)
    bindings: dict[str, Binding] = {"x": x, "out": out}
    params: dict[str, Any] = {
        "dims": innermost_first(copy.dims, 1),
        "x_strides": innermost_first(copy.x_strides, 0),
        "out_strides": innermost_first(copy.out_strides, 0),
        "rank": len(copy.dims),
        "n": n,
        "x_base": copy.x_base,
        "out_base": copy.out_base,
    }
    _add_start(copy, bindings, params)
    planner.dispatch(
        KERNEL,
        planner.grid_1d(ceil_div(n, out_lanes), WORKGROUP),
        bindings,
        params,
        overrides=OVERRIDES,
        template={"unit": unit, "x_lanes": x_lanes, "out_lanes": out_lanes, "live": copy.start is not None},
    )


def _add_start(copy: Copy, bindings: dict[str, Binding], params: dict[str, Any]) -> None:
    """What kernels need of a live start, if there is one."""
    if copy.start is not None:
        bindings["start"] = copy.start
        params |= {"start_size": copy.start_size, "start_stride": copy.start_stride}
