"""Convolutions and transposed convolutions over one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..elementwise.element import as_scalar
from ..plan import Planner
from ..registry import op
from ..rows import Cut
from ..sizes import Found, Sizes
from ..values import IntLike, Tensor
from .batch_norm import BatchNorm
from .call import Window, checked, window_of
from .reference import conv_with_clamp_reference, convolution_reference, fused_convolution_reference
from .routes import convolve

Ints = Sequence[IntLike]


def _known_window(
    s: Sizes, weight: Tensor, lists: Sequence[Ints], transposed: bool, groups: IntLike
) -> tuple[Window, int] | None:
    """The window and the output channels of a call, if no live number has a part in them."""
    numbers = [[s.value(n) for n in one] for one in lists]
    kernel, count = s.of(weight), s.value(groups)
    known = [[n for n in one if isinstance(n, int)] for one in (kernel, *numbers)]
    complete = list(map(len, known)) == list(map(len, (kernel, *numbers)))
    if not complete or not isinstance(count, int) or len(kernel) < 3 or 0 in known[1]:
        return None
    window = window_of(tuple(known[0]), known[1], known[2], known[3], transposed, known[4])
    if {len(n) for n in (window.stride, window.padding, window.dilation, window.output_padding)} != {len(kernel) - 2}:
        return None
    return window, known[0][1] * count if transposed else known[0][0]


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
    known = _known_window(s, weight, (stride, padding, dilation, output_padding), transposed, groups)
    if known is None or x.rank != weight.rank:
        return None
    window, channels = known
    found: list[Any] = [s.of(x)[0], channels]
    for axis, (size, kept) in enumerate(zip(s.of(x)[2:], window.keeps, strict=True)):
        found.append(size if kept else window.output(size, axis) if isinstance(size, int) else None)
    return tuple(found)


def convolution_rows(
    cut: Cut,
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
) -> int | None:
    """The images of a batch, and the places of a dimension along which nothing but one of them is under the kernel."""
    axis = cut.only(x)
    if axis is None or axis == 0:
        return axis
    known = _known_window(Sizes(), weight, (stride, padding, dilation, output_padding), transposed, groups)
    if known is None or axis == 1 or x.rank != weight.rank:
        return None
    window, along = known[0], axis - 2
    return axis if window.keeps[along] and window.kernel[along] == 1 and window.padding[along] == 0 else None


@op("aten.convolution.default", reference=convolution_reference, sizes=convolution_sizes, rows=convolution_rows)
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


@op(
    "et_vk.conv_with_clamp.default", reference=conv_with_clamp_reference, sizes=convolution_sizes, rows=convolution_rows
)
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
    low = as_scalar(-math.inf if output_min is None else output_min, "f32")
    high = as_scalar(math.inf if output_max is None else output_max, "f32")
    convolve(planner, replace(call, low=low, high=high))


@op(
    "et_webgpu.fused_convolution.default",
    reference=fused_convolution_reference,
    sizes=convolution_sizes,
    rows=convolution_rows,
)
def fused_convolution(
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
    norm: list[Tensor | None],
    eps: float,
    output_min: float | None,
    output_max: float | None,
    out: Tensor,
) -> None:
    """``conv_with_clamp`` with a batch norm before the bounds.

    ``norm``: its weight and bias, which may be None, mean and variance [O]. Weights, bias and norm are float32
    constants, so that load computes them as one.
    """
    lists = (stride, padding, dilation, output_padding)
    call = checked(planner, "fused_convolution", x, weight, bias, lists, transposed, groups, out)
    planner.check(len(norm) == 4, f"fused_convolution: a norm has four tensors, not {norm}")
    gamma, beta, mean, variance = norm
    given = [t for t in (bias, *norm) if t is not None]
    planner.check(
        all(t.dtype == "float32" and planner.is_constant(t) for t in (weight, *given)) and x.dtype == "float32",
        f"fused_convolution takes float32 tensors and constants, not {[x, weight, *given]}",
    )
    planner.check(
        mean is not None and variance is not None and all(t.dims == (call.out_channels,) for t in given),
        f"fused_convolution: a norm of {call.out_channels} channels, not {norm}",
    )
    if mean is None or variance is None:
        return
    low = -math.inf if output_min is None else output_min
    high = math.inf if output_max is None else output_max
    convolve(planner, replace(call, low=low, high=high, norm=BatchNorm(gamma, beta, mean, variance, eps)))
