"""What ``bench_vision --sweep`` tries: routes and tunings of convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench.vision_models import Conv
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.convolution.depthwise import plan as depthwise
from executorch_webgpu.ops.convolution.gemm import plan as gemm

KERNELS = {"gemm": "convolution/gemm", "depthwise": "convolution/depthwise"}


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


def of_layers(device: Device, layer: Conv) -> list[Tuned]:
    """What is chosen now, and then what else can run."""
    own = depthwise_tunings() if layer.groups == layer.inputs else gemm_tunings()
    return [Tuned(), Tuned("direct"), *own]


def gemm_tunings() -> Iterator[Tuned]:
    """Each tile, alone and with several workgroups a tile."""
    for (rows, columns, depth), splits in product(
        ((2, 2, 16), (1, 2, 16), (2, 1, 16), (1, 1, 16), (1, 1, 32)), (1, 2, 4, 8, 16)
    ):
        tile = gemm.Tile(rows, columns, depth)
        tuning = gemm.Tuning((tile,), split_workgroups=1 << 20, split_steps=1, most_splits=splits)
        yield Tuned("gemm", tuning, f"{tile.row_quads}x{tile.column_quads} d{tile.depth} /{splits}")


def depthwise_tunings() -> Iterator[Tuned]:
    for outputs, workgroup in product((1, 2, 4, 7, 8), (32, 64, 128, 256)):
        yield Tuned("depthwise", depthwise.Tuning(outputs, workgroup), f"{outputs} in {workgroup}")
