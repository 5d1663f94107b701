"""Sampling at the places of a grid, and grids of places."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..elementwise.element import as_scalar
from ..plan import Planner
from ..pool.window import spatial
from ..registry import op
from ..rows import Cut, RowAxes
from ..shapes import ceil_div
from ..sizes import Found, Shape, Sizes, quotient
from ..values import INT32_MAX, Tensor
from .reference import cubic_weights

Array = np.ndarray
WORKGROUP = 64
MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")


def _padded(place: Array, size: int, padding: str, *, corners: bool) -> Array:
    if padding == "zeros":
        return place
    if padding == "reflection":
        low, span = (0.0, size - 1) if corners else (-0.5, size)
        if span == 0:
            return np.zeros_like(place)
        far = np.abs(place - low)
        turns, extra = np.divmod(far, span)
        place = np.where(turns % 2 == 0, extra, span - extra) + low
    return np.clip(place, 0, size - 1)


def _element(x: Array, row: Array, column: Array) -> Array:
    """Elements [N, C, rows, columns] of ``x``, of each image those at places [N, rows, columns]; beyond the edges 0."""
    height, width = x.shape[2:]
    inside = (row >= 0) & (column >= 0) & (row < height) & (column < width)
    y, z = (np.where(inside, place, 0).astype(np.int64) for place in (row, column))
    found = np.moveaxis(x[np.arange(len(x))[:, None, None], :, y, z], -1, 1)
    return np.where(inside[:, None], found, 0)


def grid_sampler_reference(x: Array, grid: Array, mode: int, padding: int, align_corners: bool) -> Array:
    """``x`` [N, C, H, W] at the places (column, row) of ``grid`` [N, rows, columns, 2], from -1 to 1."""
    sizes = (x.shape[3], x.shape[2])
    beyond, corners = PADDINGS[padding], bool(align_corners)
    places = [
        (grid[..., a] + 1) / 2 * (n - 1) if corners else ((grid[..., a] + 1) * n - 1) / 2 for a, n in enumerate(sizes)
    ]
    if MODES[mode] != "bicubic":
        places = [_padded(p, n, beyond, corners=corners) for p, n in zip(places, sizes, strict=True)]
    column, row = places
    if MODES[mode] == "nearest":
        return _element(x, np.round(row), np.round(column))
    left, top = np.floor(column), np.floor(row)
    across, down = column - left, row - top
    offsets = range(2) if MODES[mode] == "bilinear" else range(-1, 3)
    if MODES[mode] == "bilinear":
        weights = [[1 - part, part] for part in (across, down)]
    else:
        weights = [cubic_weights(part) for part in (across, down)]
        left, top = (_Taps(place, n, beyond, corners) for place, n in ((left, sizes[0]), (top, sizes[1])))
    total: Any = 0
    for dy, down_weight in zip(offsets, weights[1], strict=True):
        for dx, across_weight in zip(offsets, weights[0], strict=True):
            total = total + _element(x, top + dy, left + dx) * (across_weight * down_weight)[:, None]
    return total


class _Taps:
    """Places whose neighbours are brought within the edges one by one, as bicubic sampling does."""

    def __init__(self, place: Array, size: int, padding: str, corners: bool) -> None:
        self._place, self._size, self._padding, self._corners = place, size, padding, corners

    def __add__(self, offset: int) -> Array:
        return _padded(self._place + offset, self._size, self._padding, corners=self._corners)


def grid_sampler_sizes(s: Sizes, x: Tensor, grid: Tensor, *rest: Any) -> Found | None:
    if x.rank != 4 or grid.rank != 4:
        return None
    s.equate(s.of(x)[:1], s.of(grid)[:1])
    return (*s.of(x)[:2], *s.of(grid)[1:3])


def grid_sampler_rows(cut: Cut, x: Tensor, grid: Tensor, *rest: Any) -> int | None:
    """Images with their grids; channels; and places."""
    if cut.together([x, grid]) == 0:
        return 0
    if x.id == grid.id or cut.counts or len(cut.axes) != 1:
        return None
    return {(x.id, 1): 1, (grid.id, 1): 2, (grid.id, 2): 3}.get(next(iter(cut.axes.items())))


@op(
    "aten.grid_sampler_2d.default",
    reference=grid_sampler_reference,
    sizes=grid_sampler_sizes,
    rows=grid_sampler_rows,
)
def grid_sampler_2d(
    planner: Planner,
    x: Tensor,
    grid: Tensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
    out: Tensor,
) -> None:
    """``x`` [N, C, H, W] at the places (column, row) of ``grid`` [N, rows, columns, 2]; of floats.

    Places run from -1 to 1 between the centers of the outermost elements if ``align_corners``, else between their outer
    edges. Modes are 0 bilinear, 1 nearest, 2 bicubic; paddings 0 zeros, 1 border, 2 reflection. Places that are
    infinite or NaN give 0.
    """
    tensors = [x, grid, out]
    same = all(t.dtype == x.dtype for t in tensors) and x.element.is_float
    planner.check(same, f"grid_sampler_2d takes float tensors of one dtype, not {tensors}")
    fits = x.rank == grid.rank == 4 and x.dims[0] == grid.dims[0] and grid.dims[3] == 2 and 0 not in x.dims[2:]
    planner.check(fits, f"grid_sampler_2d: {x} and {grid} must have dims [N, C, H, W] and [N, rows, columns, 2]")
    planner.check(
        0 <= interpolation_mode < len(MODES) and 0 <= padding_mode < len(PADDINGS),
        f"grid_sampler_2d: there are no mode {interpolation_mode} and padding {padding_mode}",
    )
    planner.resize(out)
    planner.dispatch(
        "resample/grid_sampler",
        planner.grid_1d(ceil_div(out.numel, 4), WORKGROUP),
        {"x": x, "grid": grid, "out": out},
        {
            "x_dims": spatial(x.dims, 2, 1),
            "out_dims": spatial(out.dims, 2, 1),
            "n": out.numel,
            "channels": max(x.dims[1], 1),
        },
        overrides={"wg_size": WORKGROUP},
        template={
            "mode": MODES[interpolation_mode],
            "padding": PADDINGS[padding_mode],
            "corners": bool(align_corners),
            "dtype": x.dtype,
        },
    )


def grid_priors_reference(x: Array, stride: int, offset: float) -> Array:
    """Places (column, row) of the elements of the last two dimensions, row by row: (index + offset) * stride."""
    height, width = x.shape[-2:]
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return (np.stack([columns.ravel(), rows.ravel()], axis=-1) + offset) * stride


def grid_priors_sizes(s: Sizes, x: Tensor, *rest: Any) -> Shape | Found:
    return (quotient(s.of(x)[-2:], ()), 2)


def grid_priors_rows(cut: Cut, x: Tensor, *rest: Any) -> RowAxes | None:
    """The result is the same whatever comes before the last two dimensions."""
    axis = cut.only(x)
    return (None,) if axis is not None and axis < x.rank - 2 else None


@op(
    "et_vk.grid_priors.default",
    reference=grid_priors_reference,
    sizes=grid_priors_sizes,
    rows=grid_priors_rows,
)
def grid_priors(planner: Planner, x: Tensor, stride: int, offset: float, out: Tensor) -> None:
    """``out`` [H * W, 2] = (index + ``offset``) * ``stride`` of column and row, for each element of ``x`` [..., H, W].

    float32 or int32; the values of ``x`` do not count.
    """
    planner.check(out.dtype in ("float32", "int32"), f"grid_priors: {out} must have dtype float32 or int32")
    planner.check(x.rank >= 2, f"grid_priors: {x} must have two dimensions or more")
    planner.check(
        abs(stride) <= INT32_MAX and math.isfinite(offset),
        f"grid_priors: stride {stride} and offset {offset} must be finite numbers of 32 bits",
    )
    planner.resize(out)
    planner.dispatch(
        "resample/grid_priors",
        planner.grid_1d(out.numel, WORKGROUP),
        {"out": out},
        {"n": out.numel, "width": x.dims[-1], "stride": stride, "offset": as_scalar(offset, "f32")},
        overrides={"wg_size": WORKGROUP},
        template={"out": "f32" if out.dtype == "float32" else "i32"},
    )
