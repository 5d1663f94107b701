"""Normalization of channels: batch norm with given statistics or its own, instance norm, group norm.

With given statistics it is one product and one sum an element. Own statistics are means and variances of rows, which
are channels over a batch, or groups of channels of one element of it. A workgroup reduces a part of a row, another one
merges the parts, and a second pass over the elements applies them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..registry import op
from ..rows import Cut, RowAxes
from ..shapes import ceil_div
from ..sizes import Found, Sizes
from ..values import IntLike, Tensor

Array = np.ndarray
WORKGROUP = 64
APPLY_WORKGROUP = 256  # fewer workgroups: a device begins about one a clock
LANES = 256  # invocations that share a part of a row
PARTS = 2048  # parts that keep a device busy
SHORTEST = 4096  # elements of a part, if there are several
_FLOATS = ("float32", "float16", "bfloat16")


def affine_reference(x: Array, center: Array, factor: Array, weight: Array | None, bias: Array | None) -> Array:
    """(x - center) * factor * weight + bias; weight and bias hold a number for each channel."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    out = (x - center) * factor
    out = out if weight is None else out * weight.reshape(shape)
    return out if bias is None else out + bias.reshape(shape)


def batch_norm_reference(
    x: Array, weight: Array | None, bias: Array | None, mean: Array, variance: Array, momentum: float, eps: float
) -> tuple[Array, Array, Array]:
    """``x`` [N, C, ...] normalized by ``mean`` and ``variance`` [C], and two empty arrays."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    with np.errstate(all="ignore"):
        factor = 1 / np.sqrt(variance.reshape(shape) + eps)
    empty = np.zeros(0, x.dtype)
    return affine_reference(x, mean.reshape(shape), factor, weight, bias), empty, empty


def _channels_reference(
    x: Array, rows: Sequence[int], axes: tuple[int, ...], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """Normalized over ``axes`` of ``x`` seen as ``rows``; mean and 1/deviation, flat."""
    seen = x.reshape(rows)
    with np.errstate(all="ignore"):
        mean = seen.mean(axis=axes, keepdims=True)
        rstd = 1 / np.sqrt(seen.var(axis=axes, keepdims=True) + eps)
        normalized = ((seen - mean) * rstd).reshape(x.shape)
    one = np.ones((1,) * x.ndim)
    return affine_reference(normalized, 0 * one, one, weight, bias), mean.ravel(), rstd.ravel()


def no_stats_reference(
    x: Array, weight: Array | None, bias: Array | None, training: bool, momentum: float, eps: float
) -> tuple[Array, Array, Array]:
    """Each channel normalized over the batch and all that follows; mean and 1/deviation [C]."""
    n, channels = x.shape[:2]
    return _channels_reference(x, (n, channels, math.prod(x.shape[2:])), (0, 2), weight, bias, eps)


def group_norm_reference(
    x: Array, weight: Array | None, bias: Array | None, n: int, channels: int, inner: int, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    """Each group of channels normalized; mean and 1/deviation [N, groups]."""
    count, size = len(x), x.shape[1] // groups * math.prod(x.shape[2:])
    out, mean, rstd = _channels_reference(x, (count, groups, size), (2,), weight, bias, eps)
    return out, mean.reshape(count, groups), rstd.reshape(count, groups)


# -- checks and the last pass -----------------------------------------------------------------------------------------


def _check(planner: Planner, name: str, x: Tensor, per_channel: Sequence[Tensor | None], outs: Sequence[Tensor]) -> str:
    """Refuse what is not ``x`` [N, C, ...] with numbers for each channel; the dtype of these."""
    given = [t for t in per_channel if t is not None]
    planner.check(len(outs) == 3, f"{name} has three results, not {len(outs)}")
    planner.check(x.rank >= 2, f"{name}: {x} must have dims [N, C, ...]")
    planner.check(
        x.dtype in _FLOATS and all(t.dtype == x.dtype for t in outs) and all(t.dtype in _FLOATS for t in given),
        f"{name} takes floats and gives the same, not {[x, *given]} into {list(outs)}",
    )
    planner.check(
        all(t.dims == x.dims[1:2] for t in given), f"{name}: {given} must have a number for each channel of {x}"
    )
    planner.check(len({t.dtype for t in given}) <= 1, f"{name}: {given} must have the same dtype")
    return given[0].dtype if given else x.dtype


def _apply(
    planner: Planner,
    x: Tensor,
    out: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    affine: str,
    stats: dict[str, Binding],
    **params: Any,
) -> None:
    kind = "variance" if "variance" in stats else "rows"
    bindings: dict[str, Binding] = {"x": x, "out": out, **stats}
    bindings |= {name: t for name, t in (("weight", weight), ("bias", bias)) if t is not None}
    most = max(x.numel, params.get("rows", 0))
    planner.dispatch(
        "norm/channels",
        planner.grid_1d(ceil_div(most, 4), APPLY_WORKGROUP),
        bindings,
        {"n": x.numel, "channels": max(x.dims[1], 1), "inner": max(math.prod(x.dims[2:]), 1), **params},
        overrides={"wg_size": APPLY_WORKGROUP},
        template={
            "stats": kind,
            "weight": weight is not None,
            "bias": bias is not None,
            "dtype": x.dtype,
            "affine": affine,
        },
    )


# -- given statistics -------------------------------------------------------------------------------------------------


def batch_norm_sizes(s: Sizes, x: Tensor, *rest: Any) -> list[Found]:
    return [s.of(x), (0,), (0,)]


def batch_norm_rows(cut: Cut, x: Tensor, *rest: Any) -> RowAxes | None:
    axis = cut.only(x)
    return None if axis is None or axis == 1 else (axis, None, None)


@op(
    "aten._native_batch_norm_legit_no_training.default",
    reference=batch_norm_reference,
    sizes=batch_norm_sizes,
    rows=batch_norm_rows,
)
def batch_norm(
    planner: Planner,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
    outs: list[Tensor],
) -> None:
    """``x`` [N, C, ...] normalized by ``mean`` and ``variance`` [C], times ``weight``, plus ``bias`` [C].

    Floats. ``outs`` are the result and two empty tensors; ``momentum`` counts in training only.
    """
    affine = _check(planner, "batch_norm", x, (mean, variance, weight, bias), outs)
    for out in outs:
        planner.resize(out)
    _apply(planner, x, outs[0], weight, bias, affine, {"mean": mean, "variance": variance}, eps=eps)


def legit_reference(x: Array, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *rest: Any) -> Any:
    return batch_norm_reference(x, weight, bias, mean, variance, *rest)


@op(
    "aten._native_batch_norm_legit.default",
    "aten.native_batch_norm.default",
    reference=legit_reference,
    sizes=batch_norm_sizes,
    rows=batch_norm_rows,
)
def batch_norm_legit(
    planner: Planner,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    outs: list[Tensor],
) -> None:
    """``_native_batch_norm_legit_no_training``; ``training`` must be false."""
    planner.check(not training, "batch_norm: statistics are not updated here: export the model in eval mode")
    batch_norm(planner, x, weight, bias, mean, variance, momentum, eps, outs)


# -- own statistics ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Rows of a tensor: ``length`` elements of each in segments, and how far rows and segments lie apart."""

    count: int
    length: int
    stride: int
    segment: int
    segment_stride: int

    def in_quads(self) -> Rows | None:
        """The same in units of four elements, if they consist of them."""
        steps = (self.length, self.stride, self.segment, self.segment_stride)
        return Rows(self.count, *(n // 4 for n in steps)) if not any(n % 4 for n in steps) else None


def _statistics(planner: Planner, x: Tensor, rows: Rows, most: int, eps: float) -> Binding:
    """Scratch [rows, 2] of means and 1/deviations; there are at most ``most`` rows."""
    quads = rows.in_quads()
    units, each = (quads, 4) if quads is not None else (rows, 1)
    splits = max(1, min(ceil_div(PARTS, rows.count), rows.length // SHORTEST))
    part = ceil_div(units.length, splits)
    splits = max(1, ceil_div(units.length, part)) if part else 1
    segments = rows.segment != rows.length
    for wide in (False, True):
        for several in (False, True):
            template = {"wide": wide, "segments": several, "dtype": x.dtype}
            planner.prepare("norm/moments", overrides={"wg_size": LANES}, template=template)
    parts, stats = planner.scratch((most + PARTS) * 8), planner.scratch(most * 8)
    planner.dispatch(
        "norm/moments",
        planner.grid_1d(rows.count * splits, 1),
        {"x": x, "parts": parts},
        {
            "rows": rows.count,
            "splits": splits,
            "length": units.length,
            "part": part,
            "row_stride": units.stride,
            "segment": max(units.segment, 1),
            "segment_stride": units.segment_stride,
            "eps": eps,
        },
        overrides={"wg_size": LANES},
        template={"wide": quads is not None, "segments": segments, "dtype": x.dtype},
    )
    planner.prepare("norm/merge_moments", overrides={"wg_size": WORKGROUP})
    if splits == 1:
        return parts
    planner.dispatch(
        "norm/merge_moments",
        planner.grid_1d(rows.count, 1),
        {"parts": parts, "stats": stats},
        {
            "rows": rows.count,
            "splits": splits,
            "length": rows.length,
            "part": part * each,
            "last": rows.length - (splits - 1) * part * each,
            "eps": eps,
        },
        overrides={"wg_size": WORKGROUP},
    )
    return stats


def _normalize(
    planner: Planner,
    x: Tensor,
    rows: Rows,
    most: int,
    row_channels: int,
    affine: tuple[Tensor | None, Tensor | None, str],
    eps: float,
    outs: list[Tensor],
) -> None:
    out, mean, rstd = outs
    for result in outs:
        planner.resize(result)
    if not rows.count:
        return
    stats = _statistics(planner, x, rows, most, eps)
    results: dict[str, Binding] = {"mean": mean, "rstd": rstd, "stats": stats}
    _apply(planner, x, out, *affine, results, rows=rows.count, row_channels=row_channels)


def no_stats_sizes(s: Sizes, x: Tensor, *rest: Any) -> list[Found]:
    return [s.of(x), s.of(x)[1:2], s.of(x)[1:2]]


def no_stats_rows(cut: Cut, x: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any) -> RowAxes | None:
    return (1, 0, 0) if cut.only(x) == 1 and weight is None and bias is None else None


@op(
    "aten._native_batch_norm_legit.no_stats",
    reference=no_stats_reference,
    sizes=no_stats_sizes,
    rows=no_stats_rows,
)
def batch_norm_no_stats(
    planner: Planner,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    outs: list[Tensor],
) -> None:
    """Channels of ``x`` [N, C, ...] normalized over all the rest, times ``weight``, plus ``bias`` [C].

    Floats. ``outs`` are the result, and of each channel the mean and 1/deviation.
    """
    planner.check(bool(training), "batch_norm: without statistics it must take its own, as in training")
    affine = _check(planner, "batch_norm", x, (weight, bias), outs)
    n, channels, inner = x.dims[0], x.dims[1], math.prod(x.dims[2:])
    rows = Rows(channels, n * inner, inner, inner, channels * inner)
    _normalize(planner, x, rows, x.max_dims[1], 1, (weight, bias, affine), eps, outs)


def group_norm_sizes(s: Sizes, x: Tensor, *how: Any) -> list[Found]:
    stats = (*s.of(x)[:1], how[5])  # the number of groups
    return [s.of(x), stats, stats]


def group_norm_rows(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    return 0 if cut.only(x) == 0 else None


@op("aten.native_group_norm.default", reference=group_norm_reference, sizes=group_norm_sizes, rows=group_norm_rows)
def native_group_norm(
    planner: Planner,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: IntLike,
    channels: IntLike,
    inner: IntLike,
    groups: int,
    eps: float,
    outs: list[Tensor],
) -> None:
    """``groups`` of channels of each element of ``x`` [N, C, ...] normalized, times ``weight``, plus ``bias`` [C].

    Floats. ``outs`` are the result, and [N, groups] of means and 1/deviations. The sizes are those of
    ``x``, whatever ``n``, ``channels`` and ``inner`` say.
    """
    affine = _check(planner, "group_norm", x, (weight, bias), outs)
    planner.check(
        groups > 0 and x.dims[1] % groups == 0, f"group_norm: the channels of {x} are not {groups} equal groups"
    )
    row_channels = x.dims[1] // groups
    length = row_channels * math.prod(x.dims[2:])
    rows = Rows(x.dims[0] * groups, length, length, length, 0)
    _normalize(planner, x, rows, x.max_dims[0] * groups, max(row_channels, 1), (weight, bias, affine), eps, outs)
