"""8-bit products: exact sums, by both kernels, as torch computes them of the numbers that the codes stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch.nn import functional

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.ops.plan import Planning

from .harness import Const, In, OpProgram, Out, call_graph

RNG = np.random.default_rng(0)
every_route = pytest.mark.parametrize("route", ["direct", "gemm"])


def codes(*dims: int) -> np.ndarray:
    return RNG.integers(-128, 128, dims).astype(np.int8)


@dataclass(frozen=True)
class Layer:
    """A convolution with weights as torch has them; scales are any numbers."""

    channels: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, int] = (0, 0)
    batch: int = 2

    def weights(self) -> np.ndarray:
        into, out = self.channels
        outer = (into, out // self.groups) if self.transposed else (out, into // self.groups)
        return np.maximum(codes(*outer, *self.kernel), -127)

    def packed(self, weights: np.ndarray) -> np.ndarray:
        """As the exporter lays them out: [O, (kernel, C / groups)]."""
        if self.transposed:
            split = weights.reshape(self.groups, -1, *weights.shape[1:])  # [groups, C, O, kernel] of one group
            weights = split.swapaxes(1, 2).reshape(-1, split.shape[1], *self.kernel)
        return weights.transpose(0, 2, 3, 1).reshape(len(weights), -1)

    def sums(self, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Exact, of numbers that are whole."""
        given = torch.from_numpy(x.astype(np.float64)), torch.from_numpy(weights.astype(np.float64))
        if self.transposed:
            more = self.stride, self.padding, self.output_padding, self.groups, self.dilation
            return functional.conv_transpose2d(*given, None, *more).numpy()
        return functional.conv2d(*given, None, self.stride, self.padding, self.dilation, self.groups).numpy()

    @property
    def lists(self) -> list[Any]:
        more = [list(self.output_padding)] if self.transposed else []
        return [*map(list, (self.kernel, self.stride, self.padding)), *more, list(self.dilation), self.groups]


LAYERS = {
    "primes": Layer((5, 7), (11, 13), (3, 3), padding=(1, 1)),
    "more than a tile": Layer((9, 67), (9, 9), (1, 1)),
    "planes of whole words": Layer((8, 16), (6, 8), (3, 3), stride=(2, 2), padding=(1, 1)),
    "asymmetric": Layer((6, 8), (7, 12), (3, 2), (2, 1), (0, 1), (1, 3)),
    "groups": Layer((12, 20), (5, 6), (3, 3), groups=4),
    "kernel larger than the image": Layer((3, 8), (2, 3), (5, 5), padding=(2, 2)),
    "transposed": Layer((5, 9), (4, 5), (3, 2), (2, 3), (1, 0), transposed=True, output_padding=(1, 2)),
    "transposed groups": Layer((6, 16), (3, 4), (2, 2), (2, 2), groups=2, transposed=True),
    "transposed dilation": Layer((4, 8), (5, 3), (3, 3), (1, 2), (2, 1), (2, 1), transposed=True),
    "depthwise": Layer((12, 12), (7, 9), (3, 3), (2, 2), (1, 1), groups=12),
    "large sums": Layer((1100, 8), (2, 2), (3, 3), padding=(1, 1), batch=1),
}


def expected(sums: np.ndarray, scales: np.ndarray, bias: np.ndarray | None, relu: bool, out: tuple[float, int]) -> Any:
    """Codes that are right, as a lower and an upper one: they differ where the number is within an ulp of a tie."""
    y = sums * scales.astype(np.float64) + (0 if bias is None else bias.astype(np.float64))
    q = (np.maximum(y, 0) if relu else y) / out[0]
    slack = 1e-5 + 1e-6 * np.abs(q)
    return tuple(np.clip(np.round(q + side * slack) + out[1], -128, 127) for side in (-1, 1))


def check(got: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]) -> None:
    low, high = bounds
    assert got.shape == low.shape
    assert ((low <= got) & (got <= high)).all()
    assert (low == high).mean() > 0.99


@every_route
@pytest.mark.parametrize("name", LAYERS)
def test_convolutions_are_those_of_torch(device: Device, name: str, route: str) -> None:
    layer = LAYERS[name]
    into, out = layer.channels
    x, weights = codes(layer.batch, into, *layer.size), layer.weights()
    x_zero, x_scale, out_zero = -37, 0.0173, 11
    count = out // layer.groups if layer.transposed and layer.groups > 1 else out
    scales = RNG.uniform(0.001, 0.01, -(-count // 4) * 4).astype(np.float32)
    bias = RNG.standard_normal(-(-out // 4) * 4).astype(np.float32)
    sums = layer.sums(x.astype(np.int64) - x_zero, weights)
    by_channel = scales[np.arange(out) % count][:, None, None] * np.float32(x_scale)
    spread = float(np.abs(sums * by_channel).max()) / 100
    kind = "_transposed" if layer.transposed else ""
    numbers = [x_scale, x_zero, Const(layer.packed(weights)), Const(np.zeros(len(bias), np.int32)), Const(scales)]
    for added, activation in ((bias, "none"), (None, "relu")):
        given = None if added is None else Const(added)
        args = [In(x.shape, "int8"), *numbers, spread, out_zero, given, *layer.lists, activation]
        op, family = f"et_vk.q8ta_conv2d{kind}.default", f"q8ta_conv2d{kind}"
        with OpProgram(device, op, args, Out(sums.shape, "int8"), routes={family: route}) as program:
            got = program.check([x])
        of_channels = None if added is None else added[:out, None, None]
        check(got, expected(sums, by_channel, of_channels, activation == "relu", (spread, out_zero)))


@every_route
def test_depthwise_weights_lie_by_taps(device: Device, route: str) -> None:
    """The layout of _dw, [kernel height, kernel width, O], against that of the general operator."""
    layer = LAYERS["depthwise"]
    x, weights = codes(layer.batch, 12, *layer.size), layer.weights()
    scales = Const(np.full(12, 2.0**-8, np.float32))
    results = []
    for kind, laid_out in (("", layer.packed(weights)), ("_dw", weights.transpose(2, 3, 1, 0).reshape(3, 3, 12))):
        args = [In(x.shape, "int8"), 0.0625, 5, Const(laid_out), Const(np.zeros(12, np.int32)), scales, 0.5, -3, None]
        name = f"q8ta_conv2d{kind}"
        out, options = Out((2, 12, 4, 5), "int8"), {"routes": {name: route}}
        with OpProgram(device, f"et_vk.{name}.default", [*args, *layer.lists, "none"], out, **options) as program:
            results.append(program.check([x]))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("route", ["direct", "gemm", "gemv"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 16), (67, 71, 37), (3, 130, 64), (5, 9, 1), (0, 8, 8)])
def test_linear_layers_are_those_of_torch(device: Device, m: int, n: int, k: int, route: str) -> None:
    x, weights = codes(m, k), np.maximum(codes(n, k), -127)
    scales, bias = RNG.uniform(0.001, 0.01, n).astype(np.float32), RNG.standard_normal(n).astype(np.float32)
    sums = (x.astype(np.int64) + 9) @ weights.astype(np.int64).T
    numbers = [0.03, -9, Const(weights), Const(np.zeros(n, np.int32)), Const(scales), 0.4, 5, Const(bias), "none"]
    options, out = {"routes": {"q8ta_linear": route}}, Out((m, n), "int8")
    with OpProgram(device, "et_vk.q8ta_linear.default", [In((m, k), "int8"), *numbers], out, **options) as program:
        got = program.check([x])
    if m:
        check(got, expected(sums, scales * np.float32(0.03), bias, False, (0.4, 5)))


def test_weights_that_the_program_computes(device: Device) -> None:
    """They are read as they lie, whatever route is faster for constants."""
    x, weights = codes(3, 24), codes(16, 24)
    scales = Const(np.full(16, 2.0**-8, np.float32))
    args = [In((3, 24), "int8"), 0.0625, 0, In((16, 24), "int8"), Const(np.zeros(16, np.int32)), scales]
    with OpProgram(device, "et_vk.q8ta_linear.default", [*args, 0.5, 0, None, "none"], Out((3, 16), "int8")) as program:
        program.check([x, weights])


def test_sums_of_codes_are_those_of_torch(device: Device) -> None:
    """Against the operators that q8ta_add and q8ta_relu stand for, with any scales."""
    decomposed = torch.ops.quantized_decomposed
    a, b = codes(7, 131), codes(131)
    numbers = (0.0371, -5, 0.0113, 17, 0.0529, 3)
    args = [In(a.shape, "int8"), In(b.shape, "int8"), *numbers, 1.5]
    with OpProgram(device, "et_vk.q8ta_add.default", args, Out(a.shape, "int8")) as program:
        got = program.check([a, b])
    wide = [
        decomposed.dequantize_per_tensor(torch.from_numpy(t), *numbers[2 * i : 2 * i + 2], -128, 127, torch.int8)
        for i, t in enumerate((a, b))
    ]
    total = decomposed.quantize_per_tensor(wide[0] + 1.5 * wide[1], *numbers[4:], -128, 127, torch.int8)
    np.testing.assert_array_equal(got, total.numpy())
    args = [In(a.shape, "int8"), *numbers[:4]]
    with OpProgram(device, "et_vk.q8ta_relu.default", args, Out(a.shape, "int8")) as program:
        got = program.check([a])
    positive = decomposed.quantize_per_tensor(wide[0].relu(), *numbers[2:4], -128, 127, torch.int8)
    np.testing.assert_array_equal(got, positive.numpy())


CHANGES: dict[str, tuple[int, Any, str]] = {
    "stride": (10, [0, 1], "must be positive"),
    "dimensions": (11, [0, 0, 0], "two dimensions"),
    "kernel": (9, [9, 9], "must hold 81 x 4 weights"),
    "groups": (13, 3, "must divide into 3"),
    "activation": (14, "gelu", "no activation"),
    "zero point": (2, 300, "must be int8 codes"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_fit_is_refused(name: str) -> None:
    args = [In((1, 4, 5, 5), "int8"), 0.1, 0, Const(codes(8, 36)), Const(np.zeros(8, np.int32))]
    args += [Const(np.ones(8, np.float32)), 0.1, 0, None, [3, 3], [1, 1], [0, 0], [1, 1], 1, "none"]
    place, value, message = CHANGES[name]
    args[place] = value
    graph = build_graph(call_graph("et_vk.q8ta_conv2d.default", args, Out((1, 8, 3, 3), "int8")))
    with pytest.raises(UnsupportedProgramError, match=message):
        plan_graph(graph, Planning(Features.none(), Limits.floor()))
