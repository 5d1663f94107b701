"""The same vision networks and layers in PyTorch: what is right, in float64, and what CUDA takes in float32."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from bench.vision_call import Case
from bench.vision_models import MODELS, Conv, Weights

REPEATS, WARM_UP = 20, 0.3
Array = np.ndarray


@dataclass(frozen=True)
class TorchTime:
    """GPU seconds of a pass: as it is called (eager), and as a CUDA graph, which leaves no gaps between kernels."""

    eager: float
    graph: float


def cuda_available() -> bool:
    """Whether torch is installed and has a CUDA device."""
    if find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


class TorchNet:
    """Computes a network. Its weights are drawn in the first pass, and are the same ones in each later one.

    ``batch_norm``: with the batch norms that an exporter folds into convolutions.
    """

    def __init__(self, device: str, dtype: Any, batch_norm: bool = False) -> None:
        self._device, self._dtype, self._batch_norm = device, dtype, batch_norm
        self._weights = Weights()
        self._stored: list[Any] = []
        self._used = 0

    def run(self, case: Case, x: Any) -> Any:
        self._used = 0
        return MODELS[case.model](self, x) if case.layer is None else self.conv(x, case.layer)

    def tensor(self, array: Array) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device, self._dtype)

    def conv(self, x: Any, layer: Conv) -> Any:
        from torch.nn import functional

        weight, bias = self._matrix(*layer.weight_dims), self._vector(layer.outputs)
        norm = self._batch_norm
        out = functional.conv2d(x, weight, None if norm else bias, layer.stride, layer.pad, 1, layer.groups)
        if norm:
            zeros, ones = self._constant(np.zeros, layer.outputs), self._constant(np.ones, layer.outputs)
            out = functional.batch_norm(out, zeros, ones, ones, bias, eps=1e-30)
        if layer.bounds is None:
            return out
        low, high = layer.bounds
        return functional.relu_(out) if math.isinf(high) else functional.hardtanh_(out, low, high)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def relu(self, x: Any) -> Any:
        return x.relu_()

    def gelu(self, x: Any) -> Any:
        from torch.nn import functional

        return functional.gelu(x)

    def max_pool(self, x: Any) -> Any:
        from torch.nn import functional

        return functional.max_pool2d(x, 3, 2, 1)

    def mean(self, x: Any) -> Any:
        return x.mean((2, 3))

    def linear(self, x: Any, inputs: int, outputs: int) -> Any:
        from torch.nn import functional

        return functional.linear(x, self._matrix(outputs, inputs), self._vector(outputs))

    def layer_norm(self, x: Any, width: int) -> Any:
        from torch.nn import functional

        return functional.layer_norm(x, (width,), self._vector(width, 1.0), self._vector(width), 1e-6)

    def tokens(self, x: Any) -> Any:
        import torch

        rows = x.flatten(2).transpose(1, 2)
        images, places, width = rows.shape
        first = self._vector(width)
        positions = torch.stack([self._vector(width) for _ in range(1 + places)])
        return torch.cat([first.expand(images, 1, -1), rows], 1) + positions

    def attention(self, qkv: Any, heads: int) -> Any:
        from torch.nn import functional

        images, rows, wide = qkv.shape
        q, k, v = qkv.view(images, rows, 3, heads, wide // 3 // heads).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(images, rows, wide // 3)

    def first(self, x: Any) -> Any:
        return x[:, 0]

    def _matrix(self, *dims: int) -> Any:
        return self._once(lambda: self._weights.matrix(*dims))

    def _vector(self, width: int, mean: float = 0.0) -> Any:
        return self._once(lambda: self._weights.vector(width, mean))

    def _constant(self, make: Callable[[int], Array], width: int) -> Any:
        return self._once(lambda: make(width))

    def _once(self, make: Callable[[], Array]) -> Any:
        if self._used == len(self._stored):
            self._stored.append(self.tensor(make()))
        self._used += 1
        return self._stored[self._used - 1]


def right(case: Case, device: str) -> Array:
    """The output in float64."""
    import torch

    net = TorchNet(device, torch.float64)
    with torch.no_grad():
        return net.run(case, net.tensor(case.x())).cpu().numpy()


def torch_time(case: Case, batch_norm: bool) -> TorchTime:
    """In float32 proper: TF32 is off."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    net = TorchNet("cuda", torch.float32, batch_norm)
    x = net.tensor(case.x())
    with torch.no_grad():
        _warm_up(lambda: net.run(case, x))
        eager = min(_elapsed(lambda: net.run(case, x)) for _ in range(REPEATS))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            net.run(case, x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            net.run(case, x)
        graph.replay()
        captured = min(_elapsed(graph.replay) for _ in range(REPEATS))
    torch.cuda.empty_cache()
    return TorchTime(eager, captured)


def _warm_up(work: Callable[[], object]) -> None:
    import torch

    begun = time.perf_counter()
    while time.perf_counter() - begun < WARM_UP:
        work()
        torch.cuda.synchronize()


def _elapsed(work: Callable[[], object]) -> float:
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
