"""Convolutions over two dimensions, of int8 codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..plan import Planner
from ..quantize.numbers import Array
from ..registry import op
from ..rows import Cut
from ..sizes import Found, Sizes
from ..values import IntLike, Tensor
from .numbers import Quantized
from .products import Products, Weights, check, finished, run
from .window import Window, checked_window, sums, window_of

NAMES = ("q8ta_conv2d", "q8ta_conv2d_pw", "q8ta_conv2d_dw", "q8ta_conv2d_transposed")


def image_rows(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    """Images of a batch, and places along a dimension in which each is computed of the one in its place."""
    axis = cut.only(x)
    if axis is None or axis < 2:
        return 0 if axis == 0 else None
    along = [numbers[min(axis - 2, len(numbers) - 1)] for numbers in rest[8:-3] if numbers]
    return axis if along in ([1, 1, 0, along[-1]], [1, 1, 0, 0, along[-1]]) else None


def _output_sizes(s: Sizes, x: Tensor, channels: int, window: Window) -> Found | None:
    dims = s.of(x)
    if len(dims) != 4:
        return None
    sizes = [
        window.output(n, axis) if isinstance(n, int) else n if window.keeps(axis) else None
        for axis, n in enumerate(dims[2:])
    ]
    return (dims[0], channels, *sizes)


def _stated_window(s: Sizes, lists: Sequence[Any], transposed: bool) -> Window | None:
    """The window as far as a call says it, which no plan has checked."""
    found = [[s.value(n) for n in numbers] for numbers in lists]
    known = [[n for n in numbers if isinstance(n, int)] for numbers in found]
    if known != found or not all(len(numbers) in (1, 2) for numbers in known) or min(known[1]) < 1:
        return None
    return window_of(known, transposed)


def _check_channels(planner: Planner, name: str, x: Tensor, out: Tensor, weights: Tensor, groups: int) -> None:
    planner.check(x.rank == out.rank == 4, f"{name}: {x} and {out} must be [N, C, H, W]")
    planner.check(groups >= 1 and x.dims[1] % groups == 0, f"{name}: the channels of {x} must divide into {groups}")
    planner.check(all(weights.dims), f"{name}: {weights} has no weights")


def _matrix(planner: Planner, name: str, weights: Tensor, taps: int, inputs: int) -> Weights:
    """``weights`` [O, B] with the inputs of each tap as neighbours; a row may be longer than that."""
    planner.check(
        weights.rank == 2 and weights.dims[1] >= taps * inputs,
        f"{name}: rows of {weights} must hold {taps} x {inputs} weights",
    )
    return Weights(weights, weights.dims[0], taps, inputs, weights.dims[1], inputs, 1)


def _depthwise(planner: Planner, name: str, weights: Tensor, taps: int, inputs: int) -> Weights:
    """``weights`` [kernel height, kernel width, O]."""
    planner.check(
        weights.rank == 3 and weights.dims[0] * weights.dims[1] == taps and inputs == 1,
        f"{name}: {weights} must be [kernel height, kernel width, O], of which each reads one channel, not {inputs}",
    )
    return Weights(weights, weights.dims[2], taps, 1, 1, weights.dims[2], 1)


def _by_taps(weights: Array, taps: int, inputs: int, depthwise: bool) -> Array:
    """[O, taps, inputs]."""
    if depthwise:
        return weights.reshape(taps, -1).T[..., None]
    return weights[:, : taps * inputs].reshape(-1, taps, inputs)


def _reference(
    name: str,
    x: Array,
    parameters: tuple[float, int, float, int],
    weights: Array,
    scales: Array,
    bias: Array | None,
    lists: Sequence[Sequence[int]],
    groups: int,
    activation: str,
) -> Array:
    transposed = name == "q8ta_conv2d_transposed"
    window = window_of(lists, transposed)
    kernels = _by_taps(weights, window.taps, x.shape[1] // groups, name == "q8ta_conv2d_dw")
    channels = len(kernels)
    given, out = Quantized(*parameters[:2]), Quantized(*parameters[2:])
    exact = sums(x.astype(np.float64) - given.zero, kernels, window, groups)
    which = np.arange(channels) % _scale_count(channels, groups, transposed)
    of_channels = (1, channels, 1, 1)
    added = None if bias is None else bias.reshape(-1)[:channels].reshape(of_channels)
    return finished(exact, scales[which].reshape(of_channels), added, given, out, activation == "relu")


def _scale_count(channels: int, groups: int, transposed: bool) -> int:
    """Weights of transposed convolutions are quantized by channels of a group, whichever group it is."""
    return channels // groups if transposed and groups > 1 else channels


def _plan(
    planner: Planner,
    name: str,
    x: Tensor,
    parameters: tuple[Quantized, Quantized],
    weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    lists: Sequence[Sequence[IntLike]],
    groups: int,
    activation: str,
    out: Tensor,
) -> None:
    transposed = name == "q8ta_conv2d_transposed"
    _check_channels(planner, name, x, out, weights, groups)
    window = checked_window(planner, name, lists, transposed)
    inputs = x.dims[1] // groups
    held = (_depthwise if name == "q8ta_conv2d_dw" else _matrix)(planner, name, weights, window.taps, inputs)
    planner.check(held.channels % groups == 0, f"{name}: {held.channels} channels do not divide into {groups} groups")
    height, width = (window.output(n, axis) for axis, n in enumerate(x.dims[2:]))
    planner.check(height > 0 and width > 0, f"{name}: {x} is smaller than the kernel {window.kernel}")
    planner.resize(out, (x.dims[0], held.channels, height, width))
    products = Products(
        x,
        out,
        x.dims[0],
        (x.dims[2], x.dims[3]),
        (height, width),
        held,
        groups,
        window,
        scales,
        _scale_count(held.channels, groups, transposed),
        bias,
        *parameters,
        activation == "relu",
    )
    check(planner, name, products, activation)
    run(planner, name, products)


def _channels(name: str, weights: Tensor) -> int:
    return weights.max_dims[-1 if name == "q8ta_conv2d_dw" else 0] if weights.rank else 0


def _register(name: str) -> None:
    def reference(
        x: Array,
        scale: float,
        zero: int,
        weights: Array,
        weight_sums: Array,
        scales: Array,
        out_scale: float,
        out_zero: int,
        bias: Array | None,
        *rest: Any,
    ) -> Array:
        *lists, groups, activation = rest
        parameters = (scale, zero, out_scale, out_zero)
        return _reference(name, x, parameters, weights, scales, bias, lists, groups, activation)

    def conv_sizes(s: Sizes, x: Tensor, *rest: Any) -> Found | None:
        weights, lists = rest[2], rest[8:12]
        window = _stated_window(s, lists, False)
        return None if window is None else _output_sizes(s, x, _channels(name, weights), window)

    @op(f"et_vk.{name}.default", reference=reference, sizes=conv_sizes, rows=image_rows)
    def plan(
        planner: Planner,
        x: Tensor,
        input_scale: float,
        input_zero_point: int,
        weights: Tensor,
        weight_sums: Tensor,
        weight_scales: Tensor,
        output_scale: float,
        output_zero_point: int,
        bias: Tensor | None,
        kernel_size: Sequence[IntLike],
        stride: Sequence[IntLike],
        padding: Sequence[IntLike],
        dilation: Sequence[IntLike],
        groups: int,
        activation: str,
        out: Tensor,
    ) -> None:
        """``out`` [N, O, H', W'] int8 of ``x`` [N, C, H, W] int8 and ``weights`` int8, with exact sums of codes.

        ``weights`` are [O, B], where a row holds its (kernel height, kernel width, C / groups); of ``_dw`` they are
        [kernel height, kernel width, O]. ``weight_scales`` and ``bias`` are float32, and at least O. ``activation`` is
        "none" or "relu". ``weight_sums`` follow from the weights, and are not read.
        """
        given = Quantized(input_scale, input_zero_point), Quantized(output_scale, output_zero_point)
        lists = [kernel_size, stride, padding, dilation]
        _plan(planner, name, x, given, weights, weight_scales, bias, lists, groups, activation, out)


for _name in NAMES[:3]:
    _register(_name)


def q8ta_conv2d_transposed_reference(
    x: Array,
    scale: float,
    zero: int,
    weights: Array,
    weight_sums: Array,
    scales: Array,
    out_scale: float,
    out_zero: int,
    bias: Array | None,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
) -> Array:
    parameters, lists = (scale, zero, out_scale, out_zero), [kernel, stride, padding, dilation, output_padding]
    return _reference(NAMES[3], x, parameters, weights, scales, bias, lists, groups, activation)


def transposed_sizes(s: Sizes, x: Tensor, *rest: Any) -> Found | None:
    kernel, stride, padding, output_padding, dilation = rest[8:13]
    window = _stated_window(s, [kernel, stride, padding, dilation, output_padding], True)
    return None if window is None else _output_sizes(s, x, _channels(NAMES[3], rest[2]), window)


@op(
    "et_vk.q8ta_conv2d_transposed.default",
    reference=q8ta_conv2d_transposed_reference,
    sizes=transposed_sizes,
    rows=image_rows,
)
def q8ta_conv2d_transposed(
    planner: Planner,
    x: Tensor,
    input_scale: float,
    input_zero_point: int,
    weights: Tensor,
    weight_sums: Tensor,
    weight_scales: Tensor,
    output_scale: float,
    output_zero_point: int,
    bias: Tensor | None,
    kernel_size: Sequence[IntLike],
    stride: Sequence[IntLike],
    padding: Sequence[IntLike],
    output_padding: Sequence[IntLike],
    dilation: Sequence[IntLike],
    groups: int,
    activation: str,
    out: Tensor,
) -> None:
    """As ``q8ta_conv2d``, transposed. ``weights`` are laid out by channels of the output, as there.

    With several groups ``weight_scales`` are those of one group's channels, and serve all of them.
    """
    given = Quantized(input_scale, input_zero_point), Quantized(output_scale, output_zero_point)
    lists = [kernel_size, stride, padding, dilation, output_padding]
    _plan(planner, NAMES[3], x, given, weights, weight_scales, bias, lists, groups, activation, out)
