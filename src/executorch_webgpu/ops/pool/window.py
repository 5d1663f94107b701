"""Windows over the last dimensions of a tensor: what the arguments of pooling say, and the elements of each window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..plan import Planner
from ..shapes import ceil_div
from ..sizes import Found, Size, Sizes
from ..values import Dims, Tensor

Array = np.ndarray
Numbers = int | Sequence[int]
LARGEST = 2**30  # what sums of two such numbers do not lead out of 32 bits


@dataclass(frozen=True)
class Windows:
    """Windows that slide along dimensions, with a number of each kind for each of them."""

    kernel: Dims
    stride: Dims
    padding: Dims
    dilation: Dims
    ceil_mode: bool

    def span(self, axis: int) -> int:
        """Elements from the first to the last one of a window."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def count(self, axis: int, size: int) -> int:
        """How many fit in ``size`` elements; with ``ceil_mode`` the last may stand out, if it begins inside."""
        stride, padding = self.stride[axis], self.padding[axis]
        room = size + 2 * padding - self.span(axis)
        count = (ceil_div(room, stride) if self.ceil_mode else room // stride) + 1
        return count - 1 if self.ceil_mode and (count - 1) * stride >= size + padding else count

    def sizes(self, sizes: Sequence[Size]) -> Found:
        """The numbers of windows; a size that is not known stays where there are as many windows."""

        def of(axis: int, size: Size) -> Size | None:
            if isinstance(size, int):
                return self.count(axis, size)
            same = self.stride[axis] == 1 and 2 * self.padding[axis] == self.span(axis) - 1
            return size if same else None

        return tuple(of(axis, size) for axis, size in enumerate(sizes))


def numbers(given: Numbers, n: int) -> Dims | None:
    """A number for each of ``n`` dimensions; one may stand for all."""
    listed = [given] if isinstance(given, int) else list(given)
    listed = listed * n if len(listed) == 1 else listed
    return tuple(map(int, listed)) if len(listed) == n else None


def windows(
    kernel: Numbers, stride: Numbers, padding: Numbers, dilation: Numbers, ceil_mode: bool, n: int
) -> Windows | None:
    """The windows along ``n`` dimensions, if there are such. Without a stride they lie side by side."""
    stride = kernel if not isinstance(stride, int) and not stride else stride
    found = [numbers(given, n) for given in (kernel, stride, padding, dilation)]
    kernels, strides, paddings, dilations = found
    if kernels is None or strides is None or paddings is None or dilations is None:
        return None
    made = Windows(kernels, strides, paddings, dilations, bool(ceil_mode))
    positive = all(0 < v <= LARGEST for v in (*kernels, *strides, *dilations))
    fits = positive and all(made.span(a) <= LARGEST and 0 <= 2 * paddings[a] <= kernels[a] for a in range(n))
    return made if fits else None


def check_input(planner: Planner, name: str, x: Tensor, n: int) -> None:
    """``n`` dimensions that hold something, after channels, with or without a batch."""
    planner.check(
        x.rank in (n + 1, n + 2) and 0 not in x.dims[x.rank - n :],
        f"{name}: {x} must have {n + 1} or {n + 2} dimensions, the last {n} of which are not empty",
    )


def pooled_sizes(s: Sizes, x: Tensor, found: Windows | None, n: int) -> Found | None:
    """Those of a tensor whose last ``n`` dimensions are windows."""
    if found is None or x.rank not in (n + 1, n + 2):
        return None
    sizes = s.of(x)
    return (*sizes[: x.rank - n], *found.sizes(sizes[x.rank - n :]))


def spatial(dims: Sequence[int], n: int, fill: int) -> list[int]:
    """Numbers of the last ``n`` dimensions as kernels take them: W, H, D and a fourth."""
    own = list(dims)[len(dims) - n :]
    return [*reversed(own), *(fill,) * (4 - n)]


# -- references -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taps:
    """Which elements along an axis each window holds: [windows, most elements], and whether there is such a one."""

    index: Array
    valid: Array


def sliding_taps(found: Windows, axis: int, size: int) -> Taps:
    """The windows of ``found`` over ``size`` elements."""
    starts = np.arange(found.count(axis, size)) * found.stride[axis] - found.padding[axis]
    index = starts[:, None] + np.arange(found.kernel[axis]) * found.dilation[axis]
    return Taps(index, (index >= 0) & (index < size))


def adaptive_taps(parts: int, size: int) -> Taps:
    """``parts`` windows that are equal parts of ``size`` elements, rounded outwards."""
    o = np.arange(parts, dtype=np.int64)
    start, end = o * size // max(parts, 1), -(-(o + 1) * size // max(parts, 1))
    index = start[:, None] + np.arange(int(max(end - start, default=1)))
    return Taps(index, index < end[:, None])


def gather_windows(x: Array, taps: Sequence[Taps]) -> tuple[Array, Array, Array]:
    """Elements [..., windows..., K] of all windows of the last dimensions, whether each exists, and its flat place.

    The dimensions of windows are those of ``taps``, and K counts the elements of a window in their order.
    """
    n = len(taps)
    sizes = x.shape[x.ndim - n :]
    place, valid = np.zeros((1,) * 2 * n, np.int64), np.ones((1,) * 2 * n, bool)
    for axis, (tap, size) in enumerate(zip(taps, sizes, strict=True)):
        shape = [1] * (2 * n)
        shape[axis], shape[n + axis] = tap.index.shape
        place = place * size + np.clip(tap.index, 0, size - 1).reshape(shape)
        valid = valid & tap.valid.reshape(shape)
    counts = tuple(tap.index.shape[0] for tap in taps)
    place, valid = place.reshape(*counts, -1), valid.reshape(*counts, -1)
    return x.reshape(*x.shape[: x.ndim - n], math.prod(sizes))[..., place], valid, place
