"""Vision networks written once, for whoever builds or computes them: ResNet-50, MobileNetV2 and ViT-B/16.

They have the layers and sizes of the published models, and random weights that keep activations near one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

T = TypeVar("T")
Array = np.ndarray
CLASSES = 1000
RELU, RELU6 = (0.0, math.inf), (0.0, 6.0)


@dataclass(frozen=True)
class Conv:
    """A layer from ``inputs`` to ``outputs`` channels under a square kernel; ``bounds`` of the result, if any."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1
    padding: int | None = None  # default: half of the kernel
    bounds: tuple[float, float] | None = None

    @property
    def pad(self) -> int:
        return self.kernel // 2 if self.padding is None else self.padding

    @property
    def weight_dims(self) -> tuple[int, ...]:
        return (self.outputs, self.inputs // self.groups, self.kernel, self.kernel)

    def size(self, size: int) -> int:
        """Height or width of the output."""
        return (size + 2 * self.pad - self.kernel) // self.stride + 1


class Net(Protocol[T]):
    """What a network is made with. Weights are drawn from a generator in the order of the calls."""

    def conv(self, x: T, layer: Conv) -> T:
        """A convolution with bias: what is left of a batch norm behind it."""

    def add(self, a: T, b: T) -> T: ...
    def relu(self, x: T) -> T: ...
    def gelu(self, x: T) -> T: ...
    def max_pool(self, x: T) -> T:
        """3 x 3 with stride 2."""

    def mean(self, x: T) -> T:
        """[N, C, H, W] -> [N, C]."""

    def linear(self, x: T, inputs: int, outputs: int) -> T: ...
    def layer_norm(self, x: T, width: int) -> T: ...
    def tokens(self, x: T) -> T:
        """[N, C, H, W] -> [N, 1 + H W, C], a class token first, and a position added to each."""

    def attention(self, qkv: T, heads: int) -> T:
        """[N, S, 3 C] -> [N, S, C]."""

    def first(self, x: T) -> T:
        """[N, S, C] -> [N, C]."""


class Weights:
    """Random weights, the same ones for all who draw them in one order."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def matrix(self, *dims: int) -> Array:
        """[outputs, ...]: sums keep the size of what goes in."""
        fan_in = math.prod(dims[1:])
        return self._rng.standard_normal(dims, np.float32) * np.float32(math.sqrt(1.5 / fan_in))

    def vector(self, width: int, mean: float = 0.0) -> Array:
        return self._rng.uniform(mean - 0.1, mean + 0.1, width).astype(np.float32)


def resnet50(net: Net[T], x: T) -> T:
    x = net.max_pool(net.conv(x, Conv(3, 64, 7, 2, bounds=RELU)))
    inputs = 64
    for blocks, width, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            y = net.conv(x, Conv(inputs, width, 1, bounds=RELU))
            y = net.conv(y, Conv(width, width, 3, step, bounds=RELU))
            y = net.conv(y, Conv(width, 4 * width, 1))
            x = net.relu(net.add(y, x if block else net.conv(x, Conv(inputs, 4 * width, 1, step))))
            inputs = 4 * width
    return net.linear(net.mean(x), inputs, CLASSES)


# Factor of the channels inside of a block, output channels, blocks, stride of the first one.
_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(net: Net[T], x: T) -> T:
    x = net.conv(x, Conv(3, 32, 3, 2, bounds=RELU6))
    inputs = 32
    settings = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expand, outputs, repeats, stride in settings:
        for repeat in range(repeats):
            step, width = stride if repeat == 0 else 1, inputs * expand
            y = net.conv(x, Conv(inputs, width, 1, bounds=RELU6)) if expand > 1 else x
            y = net.conv(y, Conv(width, width, 3, step, groups=width, bounds=RELU6))
            y = net.conv(y, Conv(width, outputs, 1))
            x = net.add(x, y) if step == 1 and inputs == outputs else y
            inputs = outputs
    return net.linear(net.mean(net.conv(x, Conv(inputs, 1280, 1, bounds=RELU6))), 1280, CLASSES)


def vit_b16(net: Net[T], x: T) -> T:
    width, heads = 768, 12
    x = net.tokens(net.conv(x, Conv(3, width, 16, 16, padding=0)))
    for _ in range(12):
        qkv = net.linear(net.layer_norm(x, width), width, 3 * width)
        x = net.add(x, net.linear(net.attention(qkv, heads), width, width))
        y = net.gelu(net.linear(net.layer_norm(x, width), width, 4 * width))
        x = net.add(x, net.linear(y, 4 * width, width))
    return net.linear(net.first(net.layer_norm(x, width)), width, CLASSES)


def tiny(net: Net[T], x: T) -> T:
    """Some of everything."""
    x = net.conv(x, Conv(3, 16, 3, 2, bounds=RELU6))
    x = net.max_pool(net.relu(net.add(x, net.conv(x, Conv(16, 16, 3, groups=16)))))
    averages = net.mean(x)
    x = net.tokens(net.conv(x, Conv(16, 32, 4, 4, padding=0)))
    x = net.add(x, net.attention(net.linear(net.layer_norm(x, 32), 32, 96), 2))
    return net.add(net.linear(net.gelu(net.first(x)), 32, 10), net.linear(averages, 16, 10))


MODELS: dict[str, Callable[..., object]] = {
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "vit_b16": vit_b16,
    "tiny": tiny,
}


class Layers:
    """A net that computes nothing, and collects the convolutions of a network with the sizes that they get."""

    def __init__(self) -> None:
        self.found: dict[tuple[Conv, int], int] = {}  # (layer, height of x): how many

    def conv(self, x: int, layer: Conv) -> int:
        self.found[layer, x] = self.found.get((layer, x), 0) + 1
        return layer.size(x)

    def max_pool(self, x: int) -> int:
        return (x - 1) // 2 + 1

    def add(self, a: int, b: int) -> int:
        return a

    def relu(self, x: int) -> int:
        return x

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda x, *rest: x


def layers_of(name: str, size: int) -> dict[tuple[Conv, int], int]:
    """The different convolutions of a model for images of ``size``: (layer, height of its input) -> how many."""
    net = Layers()
    MODELS[name](net, size)
    return net.found
