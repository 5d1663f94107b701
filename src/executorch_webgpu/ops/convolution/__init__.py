"""Convolutions and transposed convolutions over one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..plan import Planner
from ..registry import op
from ..rows import Cut
from ..sizes import Found, Sizes
from ..values import IntLike, Tensor
from .call import checked, window_of
from .reference import conv_with_clamp_reference, convolution_reference
from .routes import convolve

Ints = Sequence[IntLike]


def convolution_sizes(
    s: Sizes,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: IntLike,
    *rest: Any,
) -> Found | None:
    lists = [[s.value(n) for n in numbers] for numbers in (stride, padding, dilation, output_padding)]
    kernel, count = s.of(weight), s.value(groups)
    numbers = [*kernel, count, *(n for numbers in lists for n in numbers)]
    if not all(isinstance(n, int) for n in numbers) or not 2 < x.rank == weight.rank:
        return None
    fixed: list[list[int]] = [[n for n in numbers if isinstance(n, int)] for numbers in (kernel, *lists)]
    window = window_of(tuple(fixed[0]), fixed[1], fixed[2], fixed[3], transposed, fixed[4])
    if {len(n) for n in (window.stride, window.padding, window.dilation, window.output_padding)} != {x.rank - 2}:
        return None
    if 0 in window.stride or not isinstance(count, int):
        return None
    channels = fixed[0][1] * count if transposed else fixed[0][0]
    found: list[Any] = [s.of(x)[0], channels]
    for axis, (size, kept) in enumerate(zip(s.of(x)[2:], window.keeps, strict=True)):
        found.append(size if kept else window.output(size, axis) if isinstance(size, int) else None)
    return tuple(found)


def batch_rows(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    """The images of a batch."""
    return 0 if cut.only(x) == 0 else None


@op("aten.convolution.default", reference=convolution_reference, sizes=convolution_sizes, rows=batch_rows)
def convolution(
    planner: Planner,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: IntLike,
    out: Tensor,
) -> None:
    """``out`` [N, O, ...] = ``x`` [N, C, ...] under ``weight`` [O, C / groups, kernel...], plus ``bias`` [O].

    Over one to three dimensions; zeros lie around ``x``. If ``transposed``, ``weight`` is [C, O / groups, kernel...],
    and each element of ``x`` adds a kernel to the output, ``stride`` apart, of which ``padding`` is cut off; the end
    grows by ``output_padding``. Lists of one number are for all dimensions. float32, or float16 with sums in float32.
    """
    lists = (stride, padding, dilation, output_padding)
    convolve(planner, checked(planner, "convolution", x, weight, bias, lists, transposed, groups, out))


@op("et_vk.conv_with_clamp.default", reference=conv_with_clamp_reference, sizes=convolution_sizes, rows=batch_rows)
def conv_with_clamp(
    planner: Planner,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: IntLike,
    output_min: float | None,
    output_max: float | None,
    out: Tensor,
) -> None:
    """``convolution`` held between ``output_min`` and ``output_max``; None is no bound, and the upper one wins."""
    lists = (stride, padding, dilation, output_padding)
    call = checked(planner, "conv_with_clamp", x, weight, bias, lists, transposed, groups, out)
    low = -math.inf if output_min is None else output_min
    high = math.inf if output_max is None else output_max
    convolve(planner, replace(call, low=low, high=high))
