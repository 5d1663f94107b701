"""What ``bench_vision --sweep`` tries: routes and tunings of convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench.vision_models import Conv
from executorch_webgpu.ops.convolution.depthwise import plan as depthwise
from executorch_webgpu.ops.convolution.gemm import plan as gemm
from executorch_webgpu.ops.convolution.matrix import plan as matrix

KERNELS = {
    "gemm": "convolution/gemm",
    "depthwise": "convolution/depthwise",
    "matrix": "convolution/matrix",
    "matrix_f16": "convolution/matrix",
}


@dataclass(frozen=True)
class Tuned:
    """A route with a tuning; None: the default one."""

    route: str | None = None
    tuning: Any = None
    name: str = ""

    @property
    def routes(self) -> Mapping[str, str]:
        return {} if self.route is None else {"convolution": self.route}

    @property
    def tunings(self) -> Mapping[str, object]:
        """As ``Planning`` takes it."""
        return {} if self.route is None or self.tuning is None else {KERNELS[self.route]: self.tuning}


def of_layers(layer: Conv, precision: str) -> list[Tuned]:
    """What is chosen now, and then what else can run."""
    if layer.groups == layer.inputs:
        return [Tuned(), Tuned("direct"), *depthwise_tunings()]
    rounded = list(matrix_tunings("matrix_f16")) if precision == "high" else []
    return [Tuned(), Tuned("direct"), *gemm_tunings(), *matrix_tunings("matrix"), *rounded]


def gemm_tunings() -> Iterator[Tuned]:
    """Each tile, alone and with several workgroups a tile."""
    numbers = ((2, 2, 16), (1, 2, 16), (2, 1, 16), (1, 1, 16), (1, 1, 32), (1, 1, 16, 8))
    for tile, splits in product((gemm.Tile(*n) for n in numbers), (1, 2, 4, 8, 16)):
        tuning = gemm.Tuning((tile,), (1.0,), (splits,))
        yield Tuned("gemm", tuning, f"{tile.rows}x{tile.columns} d{tile.depth} /{splits}")


def depthwise_tunings() -> Iterator[Tuned]:
    for outputs, workgroup in product((1, 2, 4, 7, 8), (32, 64, 128, 256)):
        yield Tuned("depthwise", depthwise.Tuning(outputs, workgroup), f"{outputs} in {workgroup}")


def matrix_tunings(route: str) -> Iterator[Tuned]:
    tiles = ((2, 2, 4, 4, 16), (2, 2, 4, 4, 32), (2, 4, 4, 2, 32), (2, 2, 2, 4, 16), (2, 2, 2, 2, 32), (2, 2, 4, 2, 32))
    for numbers, splits in product(tiles, (1, 2, 4)):
        tuning = matrix.Tuning((matrix.Tile(*numbers),), (1.0,), (splits,))
        rows, columns, row_tiles, column_tiles, depth = numbers
        yield Tuned(route, tuning, f"{rows}x{columns} of {row_tiles}x{column_tiles} d{depth} /{splits}")
