"""Neighbours become channels, and channels change places: strided copies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.strided import Copy, dispatch_copy
from ..rows import Cut, other_dims
from ..shapes import row_major_strides
from ..sizes import Found, Sizes, like_first, quotient
from ..values import Dims, IntLike, SymInt, Tensor

Array = np.ndarray


def _copy_in_order(planner: Planner, x: Tensor, dims: Dims, order: Dims, out: Tensor) -> None:
    """``out`` holds ``x``, seen as ``dims``, with these in ``order``."""
    strides = row_major_strides(dims)
    ordered = tuple(dims[a] for a in order)
    dispatch_copy(planner, x, out, Copy(ordered, tuple(strides[a] for a in order), row_major_strides(ordered)))


def pixel_unshuffle_reference(x: Array, factor: int) -> Array:
    *batch, channels, height, width = x.shape
    split = x.reshape(math.prod(batch) * channels, height // factor, factor, width // factor, factor)
    dims = (*batch, channels * factor * factor, height // factor, width // factor)
    return split.transpose(0, 2, 4, 1, 3).reshape(dims)


def unshuffled_sizes(s: Sizes, x: Tensor, factor: int, out: Tensor) -> Found:
    scales = (((factor, factor), ()), ((), (factor,)), ((), (factor,)))
    return (*s.of(x)[:-3], *(quotient((n, *up), down) for n, (up, down) in zip(s.of(x)[-3:], scales, strict=False)))


@op(
    "aten.pixel_unshuffle.default",
    reference=pixel_unshuffle_reference,
    sizes=unshuffled_sizes,
    rows=lambda cut, x, factor, out: other_dims(cut, x, (-3, -2, -1)),
)
def pixel_unshuffle(planner: Planner, x: Tensor, factor: int, out: Tensor) -> None:
    """[..., C, H·r, W·r] -> [..., C·r·r, H, W] for r = ``factor``: neighbours become channels; any dtype."""
    fits = x.rank >= 3 and factor > 0 and x.dims[-2] % factor == 0 and x.dims[-1] % factor == 0
    planner.check(fits, f"pixel_unshuffle: the last two dimensions of {x} must be multiples of {factor}")
    *batch, channels, height, width = x.dims
    planner.resize(out)
    dims = (math.prod(batch), channels, height // factor, factor, width // factor, factor)
    _copy_in_order(planner, x, dims, (0, 1, 3, 5, 2, 4), out)


def channel_shuffle_reference(x: Array, groups: int) -> Array:
    n, channels, *sizes = x.shape
    return x.reshape(n, groups, channels // groups, *sizes).swapaxes(1, 2).reshape(x.shape)


def channel_shuffle_rows(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    return other_dims(cut, x, 1)


@op(
    "aten.channel_shuffle.default",
    "aten.native_channel_shuffle.default",
    reference=channel_shuffle_reference,
    sizes=like_first,
    rows=channel_shuffle_rows,
)
def channel_shuffle(planner: Planner, x: Tensor, groups: IntLike, out: Tensor) -> None:
    """``x`` [N, C, ...] whose channels, ``groups`` one after the other, take turns; any dtype."""
    count = planner.value(groups)
    if planner.building and isinstance(groups, SymInt) and count == 0:
        return planner.resize(out)  # an input holds it
    fits = x.rank >= 2 and count > 0 and x.dims[1] % count == 0
    planner.check(fits, f"channel_shuffle: the channels of {x} are not {count} equal groups")
    planner.resize(out)
    dims = (x.dims[0], count, x.dims[1] // count, math.prod(x.dims[2:]))
    return _copy_in_order(planner, x, dims, (0, 2, 1, 3), out)
