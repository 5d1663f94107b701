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


def split_size(numel: int) -> int:
    """Elements from the sums of a workgroup to those of the next one that shares its tile: whole fours."""
    return ceil_div(numel, 4) * 4


def add(planner: Planner, call: Convolution, sums: Binding, splits: int) -> None:
    """The result of ``sums`` [splits, out]: added up, with bias and bounds."""
    quads = split_size(call.out.numel) // 4
    _dispatch(planner, "convolution/sum", call, sums, {"quads": quads, "splits": splits, "plane": call.places})


def fold(planner: Planner, call: Convolution, sums: Binding, splits: int) -> None:
    """The result of ``sums`` [splits, batch, output channels, kernel, size of x], what places of x add to it."""
    params = window_params(call.window, call.x.dims[2:], call.out.dims[2:])
    size = split_size(call.batch * call.out_channels * call.taps * params["in_size"][-1])
    params |= {"n": call.out.numel, "splits": splits, "split_size": size}
    _dispatch(planner, "convolution/fold", call, sums, params)


def _dispatch(planner: Planner, kernel: str, call: Convolution, sums: Binding, params: dict[str, Any]) -> None:
    planner.dispatch(
        kernel,
        planner.grid_1d(ceil_div(call.out.numel, 4), _OVERRIDES["wg_size"]),
        {"sums": sums, "out": call.out} | ({} if call.shift is None else {"bias": call.shift}),
        params | {"channels": call.out_channels, "low": call.low, "high": call.high},
        overrides=_OVERRIDES,
        template=_template(call),
    )


def _template(call: Convolution) -> dict[str, Any]:
    return {"out_dtype": call.out.dtype, "bias": call.shift_dtype}
