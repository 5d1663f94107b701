"""Strided views, and the kernel that copies one into another: every reindexing operator comes down to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..plan import Binding, Planner
from ..shapes import ceil_div, row_major_strides
from ..values import Dims, SymInt, Tensor

MAX_RANK = 8
WORKGROUP = 64
KERNEL = "reindex/strided_copy"
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
    """Run ``copy`` in the widest units that its alignment allows: 16 bytes, a word, or elements within words.

    The last needs an ``out`` view that is all of ``out``, in order, since an invocation owns a word.
    """
    planner.check(x.dtype == out.dtype, f"{x} and {out} must have the same dtype")
    copy = copy.coalesced()
    planner.check(
        len(copy.dims) <= MAX_RANK,
        f"moving {x} to {out} takes {len(copy.dims)} dimensions; at most {MAX_RANK} work",
    )
    size, live = x.element.itemsize, copy.start is not None
    lanes = max(1, _WORD // size)
    for unit, width in {("vec4<u32>", 1), ("u32", 1), ("u32", lanes)}:  # live sizes decide which of them fits
        planner.prepare(KERNEL, overrides=OVERRIDES, template={"unit": unit, "lanes": width, "live": live})
    if wide := copy.widened(_QUAD // size):
        _dispatch(planner, x, out, wide, "vec4<u32>", 1)
    elif lanes == 1:
        _dispatch(planner, x, out, copy, "u32", 1)
    elif words := copy.widened(lanes):
        _dispatch(planner, x, out, words, "u32", 1)
    else:
        whole = copy.out_base == 0 and copy.out_strides == row_major_strides(copy.dims)
        planner.check(whole, f"a part of {out} does not begin and end at 4-byte words; use a 32-bit dtype for it")
        _dispatch(planner, x, out, copy, "u32", lanes)


def dispatch_whole_copy(planner: Planner, x: Tensor, out: Tensor) -> None:
    """Copy all of ``x`` as it lies in memory, padding included."""
    units = ceil_div(x.nbytes, _QUAD)
    _dispatch(planner, x, out, Copy((units,), (1,), (1,)), "vec4<u32>", 1)


def _dispatch(planner: Planner, x: Tensor, out: Tensor, copy: Copy, unit: str, lanes: int) -> None:
    n = math.prod(copy.dims)
    bindings: dict[str, Binding] = {"x": x, "out": out}
    params = {
        "dims": innermost_first(copy.dims, 1),
        "x_strides": innermost_first(copy.x_strides, 0),
        "out_strides": innermost_first(copy.out_strides, 0),
        "rank": len(copy.dims),
        "n": n,
        "x_base": copy.x_base,
        "out_base": copy.out_base,
    }
    if copy.start is not None:
        bindings["start"] = copy.start
        params |= {"start_size": copy.start_size, "start_stride": copy.start_stride}
    planner.dispatch(
        KERNEL,
        planner.grid_1d(ceil_div(n, lanes), WORKGROUP),
        bindings,
        params,
        overrides=OVERRIDES,
        template={"unit": unit, "lanes": lanes, "live": copy.start is not None},
    )
