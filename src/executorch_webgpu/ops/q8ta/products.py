"""Sums of products of 8-bit codes, exact in int32, as codes: convolutions, and linear layers, which are such of 1 x 1.

Three kernels: ``direct``, where an invocation computes four elements alone and reads weights as the file has them; and
two from weights that are repacked at load: ``gemm``, where a workgroup computes a tile, and ``gemv``, where a team
computes four elements of a linear layer on a few rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..quantize.numbers import Array, float32
from ..shapes import ceil_div
from ..values import Repacked, Tensor
from .numbers import Quantized, check_int8
from .window import Window

DIRECT_WORKGROUP = 64
TILE = 64  # rows and columns of a workgroup's tile
LEAST_COLUMNS = 8  # of a group, for which a tile pays
MOST_GEMV_ROWS = 8  # for more, a tile reads weights less often
TEAM = 16  # invocations that share a column
ACTIVATIONS = ("none", "relu")


@dataclass(frozen=True)
class Weights:
    """int8 weights of ``channels``, as [channels, taps, inputs], wherever they lie.

    ``channel``, ``tap`` and ``input`` are the distances between neighbours, in bytes.
    """

    tensor: Tensor
    channels: int
    taps: int
    inputs: int  # of a group
    channel: int
    tap: int
    input: int

    def array(self, stored: Array) -> Array:
        """[channels, taps, inputs]."""
        flat = np.ascontiguousarray(stored).reshape(-1).view(np.int8)
        shape = (self.channels, self.taps, self.inputs)
        return np.lib.stride_tricks.as_strided(flat, shape, (self.channel, self.tap, self.input))

    @property
    def nbytes(self) -> int:
        """From the first one to the last one."""
        return (self.channels - 1) * self.channel + (self.taps - 1) * self.tap + (self.inputs - 1) * self.input + 1

    @property
    def row_words(self) -> int:
        """Of a channel, repacked: every tap begins with a word."""
        return self.taps * ceil_div(self.inputs, 4)

    def packed(self) -> Repacked:
        """[channels, row_words]."""

        def pack(stored: Array) -> Array:
            padded = np.zeros((self.channels, self.taps, ceil_div(self.inputs, 4) * 4), np.int8)
            padded[..., : self.inputs] = self.array(stored)
            return padded.view(np.uint32).reshape(self.channels, -1)

        return Repacked(f"int8 by taps {self}", (self.tensor,), 4 * self.channels * self.row_words, pack)

    def sums(self) -> Repacked:
        """[channels] int32: what a zero point of 1 adds to the sums of products."""

        def total(stored: Array) -> Array:
            return self.array(stored).sum(axis=(1, 2), dtype=np.int64).astype(np.int32)

        return Repacked(f"sums of int8 by taps {self}", (self.tensor,), 4 * self.channels, total)


@dataclass(frozen=True)
class Products:
    """``out`` [N, O, H, W] of ``x`` [N, C, H, W], both int8; of a linear layer H and W are 1.

    ``scales`` are those of the channels' weights; there are ``scale_count`` before they repeat.
    """

    x: Tensor
    out: Tensor
    batch: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    weights: Weights
    groups: int
    window: Window
    scales: Tensor
    scale_count: int
    bias: Tensor | None
    x_parameters: Quantized
    out_parameters: Quantized
    relu: bool

    @property
    def plane(self) -> int:
        """Places of a channel of the output."""
        return self.out_size[0] * self.out_size[1]

    @property
    def group_out(self) -> int:
        return self.weights.channels // self.groups

    @property
    def rows(self) -> int:
        """Places of all images."""
        return self.batch * self.plane

    @property
    def is_linear(self) -> bool:
        """Whether neighbours of the output are channels."""
        return self.in_size == self.out_size == (1, 1) and self.window.taps == 1 and self.groups == 1


def finished(sums: Array, scales: Array, bias: Array | None, given: Quantized, out: Quantized, relu: bool) -> Array:
    """Codes of exact sums, all of which have the shape of ``sums``; int64."""
    y = float32(sums) * (np.float32(given.scale) * float32(scales))
    return out.codes(y if bias is None else y + float32(bias), relu=relu)


def check(planner: Planner, name: str, p: Products, activation: str) -> None:
    """Refuses what the kernels cannot compute."""
    check_int8(planner, name, [p.x, p.weights.tensor, p.out], [p.x_parameters, p.out_parameters])
    planner.check(activation in ACTIVATIONS, f"{name}: there is no activation {activation!r}")
    floats = [p.scales] if p.bias is None else [p.scales, p.bias]
    planner.check(all(t.dtype == "float32" for t in floats), f"{name} takes float32 scales and bias, not {floats}")
    planner.check(p.scales.numel >= p.scale_count, f"{name}: {p.scales} must hold {p.scale_count} scales")
    channels = p.weights.channels
    planner.check(p.bias is None or p.bias.numel >= channels, f"{name}: {p.bias} must hold {channels} elements")
    planner.check(
        channels * p.weights.inputs == 0 or p.weights.nbytes <= p.weights.tensor.numel,
        f"{name}: {p.weights.tensor} does not hold {channels} rows of {p.weights.taps} x {p.weights.inputs}",
    )


def run(planner: Planner, family: str, p: Products) -> None:
    """Plans the products, which are checked, by a route of ``family``."""
    if planner.building and p.is_linear and p.rows > 1:  # live rows decide
        _ROUTES[_choose(planner, family, p, 1)](planner, p, run=False)
    _ROUTES[_choose(planner, family, p, p.rows)](planner, p, run=True)


def _can_pack(planner: Planner, p: Products) -> bool:
    """Whether weights can be repacked: they are constants, and not too large."""
    weights = p.weights
    fits = 4 * weights.channels * weights.row_words <= planner.limits.max_binding_bytes
    return fits and planner.is_constant(weights.tensor) and weights.channels > 0 and weights.inputs > 0


def _choose(planner: Planner, family: str, p: Products, rows: int) -> str:
    packed = _can_pack(planner, p)
    fits = {"direct": True, "gemm": packed, "gemv": packed and p.is_linear}
    if p.is_linear and (planner.features.cpu or rows <= MOST_GEMV_ROWS):
        order = ["gemv", "direct", "gemm"]
    elif p.group_out >= LEAST_COLUMNS:
        order = ["gemm", "direct", "gemv"]
    else:
        order = ["direct", "gemm", "gemv"]
    return planner.choose(family, {name: fits[name] for name in order})


def _shared(p: Products) -> tuple[dict[str, Binding], dict[str, Any], dict[str, Any]]:
    """Bindings, parameters and template inputs of both kernels."""
    window = p.window
    bindings: dict[str, Binding] = {"x": p.x, "scales": p.scales, "out": p.out}
    if p.bias is not None:
        bindings["bias"] = p.bias
    params = {
        "x_zero": p.x_parameters.zero,
        "x_scale": p.x_parameters.scale,
        "out_factor": p.out_parameters.factor,
        "out_zero": p.out_parameters.zero,
        "scale_count": p.scale_count,
        "in_size": p.in_size,
        "out_size": p.out_size,
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "groups": p.groups,
        "group_in": p.weights.inputs,
        "group_out": p.group_out,
    }
    template = {"transposed": window.transposed, "relu": p.relu, "bias": p.bias is not None}
    return bindings, params, template


def _direct(planner: Planner, p: Products, run: bool) -> None:
    bindings, params, template = _shared(p)
    weights, overrides = p.weights, {"wg_size": DIRECT_WORKGROUP}
    for aligned in (False, True):  # live sizes decide
        planner.prepare("q8ta/direct", template={**template, "aligned": aligned}, overrides=overrides)
    if run:
        planner.dispatch(
            "q8ta/direct",
            planner.grid_1d(ceil_div(p.out.numel, 4), DIRECT_WORKGROUP),
            {**bindings, "weights": weights.tensor},
            {
                **params,
                "n": p.out.numel,
                "w_channel": weights.channel,
                "w_tap": weights.tap,
                "w_input": weights.input,
            },
            overrides=overrides,
            template={**template, "aligned": p.plane % 4 == 0},
        )


def _gemm(planner: Planner, p: Products, run: bool) -> None:
    bindings, params, template = _shared(p)
    weights = p.weights
    columns = ceil_div(p.group_out, TILE)
    template |= {"linear": p.is_linear}
    for words in (False, True):  # live sizes decide
        planner.prepare("q8ta/gemm", template={**template, "words": words})
    if run:
        planner.dispatch(
            "q8ta/gemm",
            planner.grid_1d(ceil_div(p.rows, TILE) * columns * p.groups, 1),
            {**bindings, "weights": weights.packed(), "weight_sums": weights.sums()},
            {
                **params,
                "rows": p.rows,
                "column_tiles": columns,
                "tap_words": ceil_div(weights.inputs, 4),
                "row_words": weights.row_words,
            },
            template={**template, "words": (p.group_out if p.is_linear else p.plane) % 4 == 0},
        )


def _gemv(planner: Planner, p: Products, run: bool) -> None:
    bindings, params, template = _shared(p)
    weights = p.weights
    lanes = 1 if planner.features.cpu else TEAM
    overrides = {"wg_size": DIRECT_WORKGROUP, "lanes": lanes}
    del template["transposed"]
    template |= {"words": weights.channels % 4 == 0, "whole_x": weights.inputs % 4 == 0}
    planner.prepare("q8ta/gemv", template=template, overrides=overrides)
    names = ("x_zero", "x_scale", "out_factor", "out_zero")
    if run:
        planner.dispatch(
            "q8ta/gemv",
            planner.grid_1d(ceil_div(p.out.numel, 4) * lanes, DIRECT_WORKGROUP),
            {**bindings, "weights": weights.packed(), "weight_sums": weights.sums()},
            {
                **{name: params[name] for name in names},
                "n": p.out.numel,
                "k": weights.inputs,
                "row_words": weights.row_words,
                "channels": weights.channels,
            },
            overrides=overrides,
            template=template,
        )


_ROUTES = {"direct": _direct, "gemm": _gemm, "gemv": _gemv}
