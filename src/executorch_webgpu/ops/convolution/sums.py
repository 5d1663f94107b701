"""Sums in float32 that are no result yet: those of workgroups that share a tile, or of a transposed convolution."""

from __future__ import annotations

from typing import Any

from ..plan import Binding, Planner
from ..shapes import ceil_div
from .call import Convolution, window_params

_OVERRIDES = {"wg_size": 64}


def prepare(planner: Planner, call: Convolution) -> None:
    """The pipeline for any number of sums."""
    kernel = "convolution/fold" if call.window.transposed else "convolution/sum"
    planner.prepare(kernel, template=_template(call), overrides=_OVERRIDES)


def add(planner: Planner, call: Convolution, sums: Binding, splits: int) -> None:
    """The result of ``sums`` [splits, out]: added up, with bias and bounds."""
    _dispatch(planner, "convolution/sum", call, sums, {"splits": splits, "plane": call.places})


def fold(planner: Planner, call: Convolution, sums: Binding, splits: int) -> None:
    """The result of ``sums`` [splits, batch, output channels, kernel, size of x], what places of x add to it."""
    params = window_params(call.window, call.x.dims[2:], call.out.dims[2:])
    split_size = call.batch * call.out_channels * call.taps * params["in_size"][-1]
    _dispatch(planner, "convolution/fold", call, sums, params | {"splits": splits, "split_size": split_size})


def _dispatch(planner: Planner, kernel: str, call: Convolution, sums: Binding, params: dict[str, Any]) -> None:
    n = call.out.numel
    planner.dispatch(
        kernel,
        planner.grid_1d(ceil_div(n, 4), _OVERRIDES["wg_size"]),
        {"sums": sums, "out": call.out} | ({} if call.bias is None else {"bias": call.bias}),
        params | {"n": n, "channels": call.out_channels, "low": call.low, "high": call.high},
        overrides=_OVERRIDES,
        template=_template(call),
    )


def _template(call: Convolution) -> dict[str, Any]:
    return {"out_dtype": call.out.dtype, "bias": None if call.bias is None else call.bias.dtype}
