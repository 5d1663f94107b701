"""Average pooling: sliding windows and adaptive ones, over one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..sizes import Found, Sizes
from ..values import INT32_MAX, IntLike, Tensor
from .max_pool import adaptive_sizes, check_parts, pooled_rows
from .routes import Pooling, dispatch_pool
from .window import Numbers, Windows, adaptive_taps, check_input, gather_windows, pooled_sizes, sliding_taps, windows

Array = np.ndarray
DTYPES = ("float32", "float16", "bfloat16", "int32")


def _sums(windows: np.ndarray) -> np.ndarray:
    """Sums over the last axis, in an order that does not depend on how many windows there are."""
    total: np.ndarray = np.ascontiguousarray(windows).sum(axis=-1)
    return total


def _extents(found: Windows, axis: int, size: int) -> Array:
    """How many elements each window has, of the input and its padding."""
    start = np.arange(found.count(axis, size)) * found.stride[axis] - found.padding[axis]
    return np.minimum(start + found.kernel[axis], size + found.padding[axis]) - start


def average_reference(
    x: Array, found: Windows, count_include_pad: bool, divisor: int | None, sizes: Sequence[int]
) -> Array:
    """Averages of windows; one without elements is 0, and of integers they are cut off towards 0."""
    taps = [sliding_taps(found, a, size) for a, size in enumerate(sizes)]
    values, valid, _ = gather_windows(x, taps)
    total = _sums(np.where(valid, values, 0))
    inside = valid.sum(axis=-1)
    count: Any = inside
    if divisor is not None:
        count = divisor
    elif count_include_pad:
        for a, size in enumerate(sizes):
            along = _extents(found, a, size).reshape([-1 if a == b else 1 for b in range(len(sizes))])
            count = along if a == 0 else count * along
    average = total / np.where(inside == 0, 1, count)
    return np.where(inside == 0, 0, average if x.dtype.kind == "f" else np.trunc(average).astype(x.dtype))


def _check_dtypes(planner: Planner, name: str, x: Tensor, out: Tensor) -> None:
    planner.check(
        x.dtype == out.dtype and x.dtype in DTYPES,
        f"{name} takes {', '.join(DTYPES)} and gives the same, not {x} into {out}",
    )


def _plan(
    planner: Planner, name: str, n: int, x: Tensor, how: Sequence[Any], counts: Sequence[Any], out: Tensor
) -> None:
    count_include_pad, divisor = counts
    _check_dtypes(planner, name, x, out)
    check_input(planner, name, x, n)
    kernel, stride, padding, ceil_mode = how
    found = windows(kernel, stride, padding, 1, ceil_mode, n)
    planner.check(
        found is not None,
        f"{name}: there are no windows of kernel, stride, padding {[kernel, stride, padding]}; padding is at most half "
        "of a kernel",
    )
    assert found is not None
    fits = divisor is None or (divisor != 0 and abs(divisor) <= INT32_MAX)
    planner.check(fits, f"{name}: the divisor {divisor} must be a 32-bit integer, and not 0")
    room = all(found.count(a, x.dims[x.rank - n + a]) > 0 for a in range(n))
    planner.check(room, f"{name}: {x} has no room for windows of {list(found.kernel)}")
    planner.resize(out)
    pooling = Pooling(x, out, n, found, "average", divisor=divisor or 0, padded=int(count_include_pad))
    dispatch_pool(planner, pooling)


def _sizes(s: Sizes, n: int, x: Tensor, how: Sequence[Any]) -> Found | None:
    kernel, stride, padding, ceil_mode = how
    return pooled_sizes(s, x, windows(kernel, stride, padding, 1, ceil_mode, n), n)


def _reference(n: int, x: Array, how: Sequence[Any], counts: Sequence[Any]) -> Array:
    kernel, stride, padding, ceil_mode = how
    found = windows(kernel, stride, padding, 1, ceil_mode, n)
    assert found is not None
    return average_reference(x, found, counts[0], counts[1], x.shape[x.ndim - n :])


def avg_pool1d_reference(
    x: Array, kernel: Numbers, stride: Numbers, padding: Numbers, ceil_mode: bool, count_include_pad: bool
) -> Array:
    return _reference(1, x, (kernel, stride, padding, ceil_mode), (count_include_pad, None))


@op(
    "aten.avg_pool1d.default",
    reference=avg_pool1d_reference,
    sizes=lambda s, x, kernel, stride, padding, ceil_mode, count_include_pad, out: _sizes(
        s, 1, x, (kernel, stride, padding, ceil_mode)
    ),
    rows=pooled_rows[1],
)
def avg_pool1d(
    planner: Planner,
    x: Tensor,
    kernel: int | list[int],
    stride: int | list[int],
    padding: int | list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    out: Tensor,
) -> None:
    """The average of every window of ``x`` [N, C, L] or [C, L]; see ``avg_pool2d``."""
    _plan(planner, "avg_pool1d", 1, x, (kernel, stride, padding, ceil_mode), (count_include_pad, None), out)


def _register_average(n: int) -> None:
    def reference(
        x: Array, kernel: Numbers, stride: Numbers, padding: Numbers, ceil: bool, padded: bool, divisor: int | None
    ) -> Array:
        return _reference(n, x, (kernel, stride, padding, ceil), (padded, divisor))

    def sizes(s: Sizes, x: Tensor, *how: Any) -> Found | None:
        return _sizes(s, n, x, how[:4])

    @op(f"aten.avg_pool{n}d.default", reference=reference, sizes=sizes, rows=pooled_rows[n])
    def avg_pool(
        planner: Planner,
        x: Tensor,
        kernel: int | list[int],
        stride: int | list[int],
        padding: int | list[int],
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
        out: Tensor,
    ) -> None:
        """The average of every window of ``x`` [N, C, ...] or [C, ...]; floats and int32.

        It is the sum divided by ``divisor_override``, or by the elements of the window, those of the padding included
        if ``count_include_pad``. Integers are cut off towards 0.
        """
        how, counts = (kernel, stride, padding, ceil_mode), (count_include_pad, divisor_override)
        _plan(planner, f"avg_pool{n}d", n, x, how, counts, out)


def _register_adaptive(n: int, name: str) -> None:
    def reference(x: Array, size: Sequence[int]) -> Array:
        taps = [adaptive_taps(*each) for each in zip(size, x.shape[x.ndim - n :], strict=True)]
        values, valid, _ = gather_windows(x, taps)
        return _sums(np.where(valid, values, 0)) / valid.sum(axis=-1)

    def sizes(s: Sizes, x: Tensor, size: Sequence[IntLike], out: Tensor) -> Found | None:
        return adaptive_sizes(s, x, size, n)

    @op(f"aten.{name}.default", reference=reference, sizes=sizes, rows=pooled_rows[n])
    def adaptive_avg_pool(planner: Planner, x: Tensor, size: list[IntLike], out: Tensor) -> None:
        """The average of each of ``size`` parts of ``x`` [N, C, ...] or [C, ...]; floats."""
        _check_dtypes(planner, name, x, out)
        planner.check(x.dtype != "int32", f"{name}: {x} must have a float dtype")
        check_input(planner, name, x, n)
        check_parts(planner, name, size, n)
        planner.resize(out)
        dispatch_pool(planner, Pooling(x, out, n, None, "average"))


for _n in (2, 3):
    _register_average(_n)
for _n, _name in ((1, "adaptive_avg_pool1d"), (2, "_adaptive_avg_pool2d"), (3, "_adaptive_avg_pool3d")):
    _register_adaptive(_n, _name)
_register_adaptive(2, "adaptive_avg_pool2d")
_register_adaptive(3, "adaptive_avg_pool3d")
