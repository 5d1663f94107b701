"""Padding: with a value, by reflection, by the edges. Fewer than no elements are taken away. One kernel template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..elementwise.element import as_scalar, is_float
from ..plan import Planner
from ..registry import op
from ..reindex.strided import MAX_RANK, innermost_first
from ..rows import Cut, other_dims
from ..shapes import ceil_div
from ..sizes import Found, Size, Sizes
from ..values import INT32_MAX, Dims, IntLike, Tensor

Array = np.ndarray
Scalar = int | float
Pads = Sequence[IntLike]
WORKGROUP = 64
MODES = {"constant": "constant", "reflection": "reflect", "replication": "edge"}  # what NumPy calls them


def pad_reference(x: Array, pads: Sequence[int], value: Scalar | None, mode: str) -> Array:
    """``x`` with ``pads``, two numbers for each dimension, the last one first; negative ones take elements away."""
    pairs = [(0, 0)] * (x.ndim - len(pads) // 2) + list(zip(pads[::2], pads[1::2], strict=True))[::-1]
    if mode != "constant":  # what is taken away at one side may be added at the other
        for axis, ((front, back), size) in enumerate(zip(pairs, x.shape, strict=True)):
            index = np.arange(-front, size + back)
            index = np.clip(index, 0, size - 1) if mode == "replication" else np.abs(index)
            x = np.take(x, np.where(index >= size, 2 * (size - 1) - index, index), axis=axis)
        return x
    cut = tuple(slice(max(-front, 0), size - max(-back, 0)) for (front, back), size in zip(pairs, x.shape, strict=True))
    added = [(max(front, 0), max(back, 0)) for front, back in pairs]
    fill = np.full((), 0 if value is None else value).astype(x.dtype)
    return np.pad(x[cut], added, constant_values=fill)


def padded_sizes(s: Sizes, x: Tensor, pads: Pads, *rest: Any) -> Found | None:
    """Those of ``x`` with what is added; one that is not known stays where as much is taken away."""
    if len(pads) % 2 or len(pads) > 2 * x.rank:
        return None

    def of(axis: int, size: Size) -> Size | None:
        place = 2 * (x.rank - 1 - axis)
        if place >= len(pads):
            return size
        front, back = s.value(pads[place]), s.value(pads[place + 1])
        if not (isinstance(front, int) and isinstance(back, int)):
            return None
        return size + front + back if isinstance(size, int) else size if front + back == 0 else None

    return tuple(of(axis, size) for axis, size in enumerate(s.of(x)))


def padded_rows(cut: Cut, x: Tensor, pads: Pads, *rest: Any) -> int | None:
    """The dimensions to which nothing is added."""
    padded = [x.rank - 1 - i // 2 for i, n in enumerate(pads) if not isinstance(n, int) or n]
    return other_dims(cut, x, padded)


def _merged(dims: Dims, x_dims: Dims, before: Dims, pads: Sequence[tuple[int, int]]) -> tuple[Dims, Dims, Dims]:
    """The same in the fewest dimensions: neighbours become one if neither is padded."""
    kept: list[list[int]] = []
    plain_before = False
    for size, x_size, front, pair in zip(dims, x_dims, before, pads, strict=True):
        plain = pair == (0, 0)
        if kept and plain and plain_before:
            kept[-1][0] *= size
            kept[-1][1] *= x_size
        else:
            kept.append([size, x_size, front])
        plain_before = plain
    merged = [tuple(numbers) for numbers in zip(*kept, strict=True)] or [(1,), (1,), (0,)]
    return merged[0], merged[1], merged[2]


def _pad(planner: Planner, name: str, x: Tensor, given: Pads, mode: str, out: Tensor, **value: Any) -> None:
    planner.check(x.dtype == out.dtype, f"{name}: {x} and {out} must have the same dtype")
    pads = planner.values(given)
    planner.check(
        len(pads) % 2 == 0 and len(pads) <= 2 * x.rank and all(abs(n) < 2**30 for n in pads),
        f"{name}: {list(pads)} are not two numbers for each of the last dimensions of {x}",
    )
    pairs = [(0, 0)] * (x.rank - len(pads) // 2) + list(zip(pads[::2], pads[1::2], strict=True))[::-1]
    for axis, ((front, back), size) in enumerate(zip(pairs, x.dims, strict=True)):
        # What a constant takes away must be there, whatever it adds at the other side.
        taken = max(-front, 0) + max(-back, 0) if mode == "constant" else -front - back
        planner.check(taken <= size, f"{name}: {list(pads)} take more than dimension {axis} of {x} has")
        if mode == "reflection":
            planner.check(max(front, back) < max(size, 1), f"{name}: {list(pads)} reflect more than {x} has")
        if mode == "replication" and (front, back) != (0, 0):
            planner.check(size > 0, f"{name}: dimension {axis} of {x} is empty and has no edges")
    planner.resize(out)
    dims, x_dims, before = _merged(out.dims, x.dims, tuple(front for front, _ in pairs), pairs)
    planner.check(len(dims) <= MAX_RANK, f"{name}: {out} takes {len(dims)} dimensions; at most {MAX_RANK} work")
    planner.check(max(out.numel, x.numel) <= INT32_MAX, f"{name}: {out} has more elements than 32 bits count")
    planner.dispatch(
        "pad/pad",
        planner.grid_1d(ceil_div(out.numel, 4), WORKGROUP),
        {"x": x, "out": out},
        {
            "dims": innermost_first(dims, 1),
            "x_dims": innermost_first(x_dims, 1),
            "before": innermost_first(before, 0),
            "rank": len(dims),
            "n": out.numel,
            **value,
        },
        overrides={"wg_size": WORKGROUP},
        template={"mode": mode, "dtype": x.dtype},
    )


@op(
    "aten.constant_pad_nd.default",
    reference=lambda x, pads, value: pad_reference(x, pads, value, "constant"),
    sizes=padded_sizes,
    rows=padded_rows,
)
def constant_pad_nd(planner: Planner, x: Tensor, pads: list[IntLike], value: Scalar | None, out: Tensor) -> None:
    """``x`` with ``value`` (0 if it is None) around it; any dtype.

    ``pads`` are the numbers of elements before and after, of the last dimension first. Negative ones take elements
    away. A value is brought to the dtype as torch does: of floats to integers it is cut off.
    """
    fill: Scalar = 0 if value is None else value
    if not is_float(x):
        planner.check(math.isfinite(fill), f"constant_pad_nd: {x} cannot hold {fill}")
        fill = bool(fill) if x.dtype == "bool" else int(fill)
    number = as_scalar(fill, "f32" if is_float(x) else "i32")
    _pad(planner, "constant_pad_nd", x, pads, "constant", out, value=number)


def _register(name: str, mode: str, n: int) -> None:
    def reference(x: Array, pads: Sequence[int]) -> Array:
        return pad_reference(x, pads, None, mode)

    @op(f"aten.{name}.default", reference=reference, sizes=padded_sizes, rows=padded_rows)
    def pad(planner: Planner, x: Tensor, pads: list[IntLike], out: Tensor) -> None:
        """``x`` [N, C, ...] or [C, ...] with what its edges say around it; any dtype; see ``constant_pad_nd``.

        A reflection leaves the edge itself out, and is shorter than its dimension.
        """
        planner.check(
            len(pads) == 2 * n and x.rank in (n + 1, n + 2), f"{name}: {x} cannot have {list(pads)} elements around it"
        )
        _pad(planner, name, x, pads, mode, out)


for _mode in ("reflection", "replication"):
    for _n in (1, 2, 3):
        _register(f"{_mode}_pad{_n}d", _mode, _n)
