"""The direct route: any convolution, on any device, with weights as they lie in the file."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ...plan import Binding, Planner
from ...shapes import ceil_div
from .. import sums
from ..call import Convolution, window_params

_WORKGROUP = 64
_CPU_WORKGROUP = 8  # an AVX2 vector of invocations


def run(planner: Planner, call: Convolution) -> None:
    """float16 results are sums in float32 first: an invocation cannot write half a word."""
    if call.out.dtype == "float32":
        _run(planner, call, call.out)
        return
    sums_of = planner.scratch(4 * call.out.numel)
    _run(planner, replace(call, bias=None, low=-math.inf, high=math.inf), sums_of)
    sums.add(planner, call, sums_of, 1)


def _run(planner: Planner, call: Convolution, out: Binding) -> None:
    template = _template(planner, call)
    channels, places = template["channels"], template["places"]
    place_blocks, channel_blocks = ceil_div(call.places, places), ceil_div(call.group_out, channels)
    invocations = call.batch * call.groups * channel_blocks * place_blocks
    taps, inputs, outputs = call.taps, call.group_in, call.group_out
    from_out, from_in = (taps, outputs * taps) if call.window.transposed else (inputs * taps, taps)
    wg_size = _CPU_WORKGROUP if planner.features.cpu else _WORKGROUP
    bindings: dict[str, Binding] = {"x": call.x, "weights": call.weights, "out": out}
    planner.dispatch(
        "convolution/direct",
        planner.grid_1d(invocations, wg_size),
        bindings if call.shift is None else bindings | {"bias": call.shift},
        {
            **window_params(call.window, call.x.dims[2:], call.out.dims[2:]),
            "groups": call.groups,
            "group_in": inputs,
            "group_out": outputs,
            "weights_group": inputs * outputs * taps,
            "weights_out": from_out,
            "weights_in": from_in,
            "place_blocks": place_blocks,
            "channel_blocks": channel_blocks,
            "invocations": invocations,
            "low": call.low,
            "high": call.high,
        },
        overrides={"wg_size": wg_size},
        template=template,
    )


def _template(planner: Planner, call: Convolution) -> dict[str, Any]:
    """By maximum dims, so that all steps have one pipeline."""
    most, places = (8 if planner.features.cpu else 4), math.prod(call.out.max_dims[2:])
    return {
        "x_dtype": call.x.dtype,
        "weights_dtype": call.weight.dtype,
        "channels": next(n for n in (most, 4, 1) if n <= call.group_out),
        "places": most if places >= 256 else 4 if places >= 16 else 1,
        "transposed": call.window.transposed,
        "bias": call.shift_dtype,
    }
