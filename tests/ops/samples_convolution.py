"""Samples of convolutions: see ``samples.py``, which lists them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from executorch_webgpu.ops.convolution.call import window_of
from executorch_webgpu.ops.convolution.gemm.plan import Tile, Tuning
from executorch_webgpu.ops.convolution.matrix import plan as matrix

from .harness import Const, Out
from .samples import Input, Sample

Dims = tuple[int, ...]
_rng = np.random.default_rng(0)


@dataclass(frozen=True)
class Layer:
    """A convolution of ``x`` [N, C, ...], whose dims shrink to ``live``, to ``channels``."""

    x: Dims
    live: Dims
    channels: int
    kernel: Dims
    stride: Sequence[int] = (1,)
    padding: Sequence[int] = (0,)
    dilation: Sequence[int] = (1,)
    transposed: bool = False
    output_padding: Sequence[int] = (0,)
    groups: int = 1
    bias: bool = True
    dtype: str = "float32"

    @property
    def weight(self) -> Dims:
        first, second = (self.x[1], self.channels) if self.transposed else (self.channels, self.x[1])
        return (first, second // self.groups, *self.kernel)

    @property
    def out(self) -> Dims:
        lists = self.stride, self.padding, self.dilation
        window = window_of(self.weight, *lists, self.transposed, self.output_padding)
        return (self.x[0], self.channels, *(window.output(size, axis) for axis, size in enumerate(self.x[2:])))

    def sample(self, bounds: Sequence[float | None] | None = None, **options: Any) -> Sample:
        """``bounds`` make it a conv_with_clamp."""
        op = "aten.convolution.default" if bounds is None else "et_vk.conv_with_clamp.default"
        args = [
            Input(self.x, self.dtype, live=self.live),
            self._const(self.weight),
            self._const((self.channels,)) if self.bias else None,
            *(list(n) for n in (self.stride, self.padding, self.dilation)),
            self.transposed,
            list(self.output_padding),
            self.groups,
            *(bounds or ()),
        ]
        return Sample(op, args, Out(self.out, self.dtype), options)

    def _const(self, dims: Dims) -> Const:
        return Const(_rng.uniform(-1, 1, dims).astype(self.dtype))


IMAGE, SMALLER = (3, 6, 11, 13), (2, 6, 7, 5)

LAYERS = (
    Layer(IMAGE, SMALLER, 7, (3, 3), padding=(1, 1)),
    Layer(IMAGE, SMALLER, 7, (3, 2), (2, 3), (1, 0), (1, 2), bias=False),
    Layer(IMAGE, SMALLER, 5, (1, 1)),
    Layer(IMAGE, SMALLER, 8, (3, 3), (2, 2), (2, 1), groups=2),
    Layer(IMAGE, SMALLER, 12, (3, 3), padding=(1, 1), groups=6),
    Layer((3, 6, 3, 3), (1, 6, 3, 3), 2, (3, 3)),
    Layer((2, 5, 67), (1, 5, 13), 7, (5,), (2,), (3,), (2,)),
    Layer((2, 3, 5, 7, 6), (1, 3, 4, 4, 5), 5, (2, 3, 3), (1, 2, 1), (1, 1, 0), (2, 1, 1)),
    Layer(IMAGE, SMALLER, 7, (3, 3), (2, 2), (1, 1), transposed=True, output_padding=(1, 0)),
    Layer(IMAGE, SMALLER, 8, (2, 2), (2, 2), transposed=True, groups=2, bias=False),
    Layer((2, 5, 31), (1, 5, 7), 4, (4,), (3,), (2,), (2,), transposed=True, output_padding=(2,)),
    Layer((2, 3, 3, 4, 5), (1, 3, 2, 2, 2), 2, (2, 3, 2), (2, 1, 2), (1, 0, 0), transposed=True),
)


WIDE = (
    Layer((2, 24, 9, 11), (1, 24, 5, 7), 70, (3, 3), padding=(1, 1)),
    Layer((2, 20, 12, 13), (1, 20, 5, 7), 70, (1, 1), bias=False),
    Layer((2, 13, 12, 13), (1, 13, 6, 6), 131, (1, 1)),
    Layer((2, 13, 15), (1, 13, 7), 34, (4,), (2,), (1,), transposed=True, groups=1),
)
SPLIT = {"convolution/gemm": Tuning(splits=(7,))}
TILES = [
    {"convolution/gemm": Tuning((tile,), (1.0,), (1,))} for tile in (Tile(2, 2, 16), Tile(1, 1, 32), Tile(1, 1, 16, 8))
]


def convolutions() -> Iterator[Sample]:
    for layer in LAYERS:
        yield layer.sample()
    for bounds in ((0.0, 6.0), (None, 0.5), (-0.5, None), (None, None)):
        yield LAYERS[0].sample(bounds)


def products() -> Iterator[Sample]:
    """By the gemm route, whichever is chosen."""
    gemm: dict[str, Any] = {"routes": {"convolution": "gemm"}}
    for layer in (*LAYERS, *WIDE):
        yield layer.sample((-1.5, 2.5), **gemm)
    for layer, tunings in itertools.product((WIDE[0], WIDE[2], WIDE[3], LAYERS[1]), (SPLIT, *TILES)):
        yield layer.sample(**gemm, tunings=tunings)


DEPTHWISE = (
    Layer(IMAGE, SMALLER, 6, (3, 3), padding=(1, 1), groups=6),
    Layer(IMAGE, SMALLER, 12, (3, 5), (2, 2), (1, 2), (1, 2), groups=6, bias=False),
    Layer(IMAGE, SMALLER, 6, (5, 2), (1, 3), (4, 0), (2, 1), groups=6),
    Layer((2, 5, 67), (1, 5, 13), 5, (7,), (2,), (3,), groups=5),
    Layer((2, 5, 1, 67), (1, 5, 1, 13), 5, (1, 4), (2, 1), (0, 3), groups=5),
    Layer((2, 1, 9), (1, 1, 5), 1, (3,), padding=(1,)),
)


def depthwise() -> Iterator[Sample]:
    for layer in DEPTHWISE:
        yield layer.sample((-1.5, 2.5), routes={"convolution": "depthwise"})
    for layer in DEPTHWISE[:2]:
        yield replace(layer, dtype="float16").sample()
        yield layer.sample(routes={"convolution": "direct"})


WHOLE = (
    Layer((5, 13, 1, 1), (1, 13, 1, 1), 7, (1, 1)),
    Layer((3, 4, 3, 5), (2, 4, 3, 5), 9, (3, 5), (2, 1), bias=False),
)


def whole_images() -> Iterator[Sample]:
    for layer, bounds in itertools.product(WHOLE, (None, (-1.5, 2.5))):
        yield layer.sample(bounds)


def halves() -> Iterator[Sample]:
    for route, layer in itertools.product(("direct", "gemm"), (LAYERS[0], LAYERS[8], WIDE[1], WIDE[2])):
        yield replace(layer, dtype="float16").sample((-1.5, 2.5), routes={"convolution": route})


def tensor_cores() -> Iterator[Sample]:
    """By a matrix route on a device that has one, however few operations there are."""
    tunings = {"convolution/matrix": matrix.Tuning(split=-1e9, channels=0)}
    for precision, layer in itertools.product(("highest", "high"), (WIDE[0], replace(WIDE[2], bias=False))):
        yield layer.sample(tunings=tunings, matmul_precision=precision)


def fused() -> Iterator[Sample]:
    """With a batch norm, by every route."""
    channels = {"direct": LAYERS[3], "gemm": WIDE[0], "depthwise": DEPTHWISE[1]}
    layers = [*channels.items(), ("direct", LAYERS[9]), ("gemm", LAYERS[8]), ("gemm", LAYERS[9])]
    for (route, layer), parts in itertools.product(layers, ("all", "mean and variance")):
        plain, n = layer.sample(), layer.channels
        affine = [Const(_rng.uniform(-1, 1, n).astype(np.float32)) for _ in range(2)] if parts == "all" else [None] * 2
        stats = [Const(_rng.uniform(low, 1.5, n).astype(np.float32)) for low in (-1.5, 0.1)]
        rest = [[*affine, *stats], 1e-3, -1.5, 2.5 if parts == "all" else None]
        options = {"routes": {"convolution": route}}
        yield Sample("et_webgpu.fused_convolution.default", [*plain.args, *rest], plain.out, options)


FAMILY = (convolutions, products, depthwise, whole_images, halves, tensor_cores, fused)
