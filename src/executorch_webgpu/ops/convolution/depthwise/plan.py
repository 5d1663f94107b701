"""The depthwise route: every channel for itself, over one or two dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...plan import Binding, Planner
from ...shapes import ceil_div, row_major_strides
from .. import sums
from ..call import Convolution

MAX_KERNEL = 32  # along the dimension of an invocation's outputs: the kernel is written out
MAX_REACH = 64


@dataclass(frozen=True)
class Tuning:
    """``outputs`` of an invocation, in workgroups of ``workgroup`` invocations."""

    outputs: int = 4
    workgroup: int = 64
    cpu_workgroup: int = 8  # an AVX2 vector of invocations


TUNING = Tuning()


def fits(planner: Planner, call: Convolution) -> bool:
    """Whether groups have one input channel, and the kernel can be written out."""
    if call.group_in != 1 or call.window.transposed or len(call.window.kernel) > 2:
        return False
    tuning, (along, _) = planner.tuning("convolution/depthwise", TUNING), _axes(call)
    reach = (tuning.outputs - 1) * along.stride + (along.kernel - 1) * along.dilation
    return along.kernel <= MAX_KERNEL and reach < MAX_REACH


def run(planner: Planner, call: Convolution) -> None:
    """float16 results are sums in float32 first: an invocation cannot write half a word."""
    if call.out.dtype == "float32":
        _run(planner, call, call.out)
        return
    sums_of = planner.scratch(4 * call.out.numel)
    _run(planner, replace(call, bias=None, low=-math.inf, high=math.inf), sums_of)
    sums.add(planner, call, sums_of, 1)


@dataclass(frozen=True)
class _Axis:
    """One dimension: its sizes, the window along it, and from one to the next element of x, out and the kernel."""

    in_size: int
    out_size: int
    kernel: int
    stride: int
    dilation: int
    padding: int
    in_stride: int
    out_stride: int
    weight_stride: int


_NO_AXIS = _Axis(1, 1, 1, 1, 1, 0, 1, 1, 1)


def _axes(call: Convolution) -> tuple[_Axis, _Axis]:
    """The dimension along which an invocation's outputs are neighbours, and the other one.

    Not the last one of two, so that neighbouring invocations read neighbours; but a first one of size 1 has none.
    """
    window = call.window
    sizes = [call.x.dims[2:], call.out.dims[2:], window.kernel]
    numbers = zip(*sizes, window.stride, window.dilation, window.padding, *map(row_major_strides, sizes), strict=True)
    axes = [_Axis(*of_axis) for of_axis in numbers]
    if len(axes) == 1:
        return axes[0], _NO_AXIS
    return (axes[1], axes[0]) if call.x.max_dims[2] == 1 else (axes[0], axes[1])


def _run(planner: Planner, call: Convolution, out: Binding) -> None:
    tuning = planner.tuning("convolution/depthwise", TUNING)
    wg_size = tuning.cpu_workgroup if planner.features.cpu else tuning.workgroup
    along, other = _axes(call)
    blocks = ceil_div(along.out_size, tuning.outputs)
    invocations = call.batch * call.out_channels * blocks * other.out_size
    bindings: dict[str, Binding] = {"x": call.x, "weights": call.weights, "out": out}
    planner.dispatch(
        "convolution/depthwise",
        planner.grid_1d(invocations, wg_size),
        bindings if call.shift is None else bindings | {"bias": call.shift},
        {
            "in_size": (along.in_size, other.in_size),
            "in_strides": (along.in_stride, other.in_stride),
            "out_size": (along.out_size, other.out_size),
            "out_strides": (along.out_stride, other.out_stride),
            "padding": (along.padding, other.padding),
            "weight_strides": (along.weight_stride, other.weight_stride),
            "others": (other.kernel, other.stride, other.dilation),
            "in_plane": math.prod(call.x.dims[2:]),
            "out_plane": call.places,
            "taps": call.taps,
            "multiplier": call.group_out,
            "channels": call.out_channels,
            "blocks": blocks,
            "inner": other.out_size,
            "invocations": invocations,
            "low": call.low,
            "high": call.high,
        },
        overrides={"wg_size": wg_size},
        template={
            "outputs": tuning.outputs,
            "kernel": along.kernel,
            "stride": along.stride,
            "dilation": along.dilation,
            "x_dtype": call.x.dtype,
            "weights_dtype": call.weight.dtype,
            "bias": call.shift_dtype,
        },
    )
