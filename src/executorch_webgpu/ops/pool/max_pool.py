"""Max pooling: sliding windows and adaptive ones, over one to three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut, other_dims
from ..sizes import Found, Sizes
from ..values import IntLike, Tensor
from .routes import Pooling, dispatch_pool
from .window import (
    Numbers,
    Taps,
    Windows,
    adaptive_taps,
    check_input,
    gather_windows,
    pooled_sizes,
    sliding_taps,
    windows,
)

Array = np.ndarray
DTYPES = ("float32", "float16", "bfloat16", "int32", "uint8", "int8", "int16")


def largest(x: Array, taps: Sequence[Taps]) -> tuple[Array, Array]:
    """The largest element of every window and its place in the plane: the first one, or the last NaN."""
    values, valid, place = gather_windows(x, taps)
    count = values.shape[-1]
    with np.errstate(invalid="ignore"):
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        best = np.where(valid, values, lowest).max(axis=-1, keepdims=True)
        first = np.argmax((values == best) & valid, axis=-1)
    nan = (values != values) & valid
    last_nan = count - 1 - np.argmax(nan[..., ::-1], axis=-1)
    chosen = np.where(nan.any(axis=-1), last_nan, first)[..., None]
    place = np.where(valid.any(axis=-1, keepdims=True), place, _starts(taps, x.shape[x.ndim - len(taps) :])[..., None])
    places = np.broadcast_to(place, values.shape)
    value = np.where(valid.any(axis=-1), np.take_along_axis(values, chosen, -1)[..., 0], lowest)
    return value.astype(x.dtype), np.take_along_axis(places, chosen, -1)[..., 0]


def _starts(taps: Sequence[Taps], sizes: Sequence[int]) -> Array:
    """Where windows begin, of what does not lie before the input: what torch names if all lies in the padding."""
    place: Any = np.zeros((1,) * len(taps), np.int64)
    for axis, (tap, size) in enumerate(zip(taps, sizes, strict=True)):
        first = np.argmax(tap.index >= 0, axis=1)[:, None]
        start = np.take_along_axis(tap.index, first, axis=1)
        place = place * size + start.reshape([-1 if axis == a else 1 for a in range(len(taps))])
    return np.asarray(place)


def _rows(n: int) -> Callable[..., int | None]:
    """Batch and channels; of what has other ranks, nothing."""

    def rows(cut: Cut, x: Tensor, *rest: Any) -> int | None:
        return other_dims(cut, x, range(x.rank - n, x.rank)) if x.rank in (n + 1, n + 2) else None

    return rows


pooled_rows = {n: _rows(n) for n in (1, 2, 3)}


def _check_results(planner: Planner, name: str, x: Tensor, out: Tensor, indices: Tensor | None) -> None:
    planner.check(
        x.dtype == out.dtype and x.dtype in DTYPES and (indices is None or indices.dtype == "int32"),
        f"{name} takes {', '.join(DTYPES)} and gives the same, and int32 places, not {x} into {out} and {indices}",
    )


def _windows(how: Sequence[Any], n: int) -> Windows | None:
    kernel, stride, padding, dilation, ceil_mode = how
    return windows(kernel, stride, padding, dilation, ceil_mode, n)


def _register_max_pool(n: int) -> None:
    def reference(x: Array, kernel: Numbers, stride: Numbers, padding: Numbers, dilation: Numbers, ceil: bool) -> Any:
        found = windows(kernel, stride, padding, dilation, ceil, n)
        assert found is not None
        return largest(x, [sliding_taps(found, a, x.shape[x.ndim - n + a]) for a in range(n)])

    def sizes(s: Sizes, x: Tensor, *how: Any) -> Found | None:
        return pooled_sizes(s, x, _windows(how[:-1], n), n)

    def plan(planner: Planner, name: str, x: Tensor, how: Sequence[Any], out: Tensor, indices: Tensor | None) -> None:
        _check_results(planner, name, x, out, indices)
        check_input(planner, name, x, n)
        found = _windows(how, n)
        planner.check(
            found is not None,
            f"{name}: there are no windows of kernel, stride, padding, dilation {list(how[:4])}; padding is at most "
            "half of a kernel",
        )
        assert found is not None
        counts = [found.count(a, x.dims[x.rank - n + a]) for a in range(n)]
        planner.check(min(counts) > 0, f"{name}: {x} has no room for windows of {list(found.kernel)}")
        planner.resize(out)
        if indices is not None:
            planner.resize(indices)
        dispatch_pool(planner, Pooling(x, out, n, found, "max", indices))

    @op(f"aten.max_pool{n}d.default", reference=lambda *a: reference(*a)[0], sizes=sizes, rows=pooled_rows[n])
    def max_pool(
        planner: Planner,
        x: Tensor,
        kernel: int | list[int],
        stride: int | list[int],
        padding: int | list[int],
        dilation: int | list[int],
        ceil_mode: bool,
        out: Tensor,
    ) -> None:
        """The largest element of every window of ``x`` [N, C, ...] or [C, ...]; see ``_with_indices``."""
        plan(planner, f"max_pool{n}d", x, (kernel, stride, padding, dilation, ceil_mode), out, None)

    def both(s: Sizes, x: Tensor, *how: Any) -> list[Found | None]:
        return [sizes(s, x, *how)] * 2

    @op(f"aten.max_pool{n}d_with_indices.default", reference=reference, sizes=both, rows=pooled_rows[n])
    def max_pool_with_indices(
        planner: Planner,
        x: Tensor,
        kernel: int | list[int],
        stride: int | list[int],
        padding: int | list[int],
        dilation: int | list[int],
        ceil_mode: bool,
        outs: list[Tensor],
    ) -> None:
        """The largest element of every window of ``x`` [N, C, ...] or [C, ...], and where it lies in its plane.

        Floats and integers; places are int32, of the first one of equals and of the last NaN, as in torch.
        """
        name = f"max_pool{n}d_with_indices"
        planner.check(len(outs) == 2, f"{name} has two results, not {len(outs)}")
        plan(planner, name, x, (kernel, stride, padding, dilation, ceil_mode), *outs)


def adaptive_sizes(s: Sizes, x: Tensor, size: Sequence[IntLike], n: int) -> Found | None:
    """Those of ``x``, and at last the ``n`` that are asked for."""
    if len(size) != n or x.rank not in (n + 1, n + 2):
        return None
    return (*s.of(x)[: x.rank - n], *map(s.value, size))


def check_parts(planner: Planner, name: str, size: Sequence[IntLike], n: int) -> None:
    parts = planner.values(size)
    planner.check(
        len(parts) == n and all(0 < p < 2**16 for p in parts),
        f"{name}: {list(parts)} are not {n} numbers of parts between 1 and 65535",
    )


def _register_adaptive(n: int) -> None:
    def reference(x: Array, size: Sequence[int]) -> tuple[Array, Array]:
        return largest(x, [adaptive_taps(*each) for each in zip(size, x.shape[x.ndim - n :], strict=True)])

    def sizes(s: Sizes, x: Tensor, size: Sequence[IntLike], outs: Sequence[Tensor]) -> list[Found | None]:
        return [adaptive_sizes(s, x, size, n)] * 2

    @op(f"aten.adaptive_max_pool{n}d.default", reference=reference, sizes=sizes, rows=pooled_rows[n])
    def adaptive_max_pool(planner: Planner, x: Tensor, size: list[IntLike], outs: list[Tensor]) -> None:
        """The largest element of each of ``size`` parts of ``x`` [N, C, ...] or [C, ...], and its place in the plane.

        Floats and integers; places are int32, of the first one of equals and of the last NaN, as in torch.
        """
        name = f"adaptive_max_pool{n}d"
        planner.check(len(outs) == 2, f"{name} has two results, not {len(outs)}")
        check_input(planner, name, x, n)
        check_parts(planner, name, size, n)
        out, indices = outs
        _check_results(planner, name, x, out, indices)
        for result in outs:
            planner.resize(result)
        dispatch_pool(planner, Pooling(x, out, n, None, "max", indices))


for _n in (1, 2, 3):
    _register_max_pool(_n)
    _register_adaptive(_n)
