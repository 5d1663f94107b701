"""Vision networks, and single layers of them, as programs on a device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from bench.vision_models import MODELS, Conv, Weights
from executorch_webgpu.format.vkgraph import VkGraph
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.graph.state import Command
from executorch_webgpu.ops.plan import Planning
from tests.graph_builder import GraphBuilder, Ref

Array = np.ndarray
Dims = tuple[int, ...]


class GraphNet:
    """Writes a network as the calls of a graph."""

    def __init__(self, seed: int = 0) -> None:
        self.build = GraphBuilder()
        self.weights = Weights(seed)
        self._dims: dict[int, Dims] = {}

    def input(self, dims: Dims) -> Ref:
        return self._known(self.build.input(dims), dims)

    def conv(self, x: Ref, layer: Conv) -> Ref:
        weight, bias = self.weights.matrix(*layer.weight_dims), self.weights.vector(layer.outputs)
        images, _, *sizes = self._dims[x.id]
        pairs = [[n, n] for n in (layer.stride, layer.pad, 1)]
        name = "aten.convolution.default" if layer.bounds is None else "et_vk.conv_with_clamp.default"
        dims = (images, layer.outputs, *map(layer.size, sizes))
        return self._call(dims, name, x, weight, bias, *pairs, False, [0, 0], layer.groups, *(layer.bounds or ()))

    def add(self, a: Ref, b: Ref) -> Ref:
        return self._call(self._dims[a.id], "aten.add.Tensor", a, b, 1)

    def relu(self, x: Ref) -> Ref:
        return self._call(self._dims[x.id], "aten.relu.default", x)

    def gelu(self, x: Ref) -> Ref:
        return self._call(self._dims[x.id], "aten.gelu.default", x, "none")

    def max_pool(self, x: Ref) -> Ref:
        *outer, height, width = self._dims[x.id]
        dims = (*outer, (height - 1) // 2 + 1, (width - 1) // 2 + 1)
        out = self._known(self.build.tensor(dims), dims)
        rest = [[3, 3], [2, 2], [1, 1], [1, 1], False, [out, self.build.tensor(dims, "int32")]]
        self.build.call("aten.max_pool2d_with_indices.default", x, *rest)
        return out

    def mean(self, x: Ref) -> Ref:
        return self._call(self._dims[x.id][:2], "aten.mean.dim", x, [2, 3], False, None)

    def linear(self, x: Ref, inputs: int, outputs: int) -> Ref:
        weight, bias = self.weights.matrix(outputs, inputs), self.weights.vector(outputs)
        return self._call((*self._dims[x.id][:-1], outputs), "aten.linear.default", x, weight, bias)

    def layer_norm(self, x: Ref, width: int) -> Ref:
        weight, bias = self.weights.vector(width, 1.0), self.weights.vector(width)
        dims = self._dims[x.id]
        out = self._known(self.build.tensor(dims), dims)
        outs = [out, *(self.build.tensor((*dims[:-1], 1)) for _ in range(2))]
        self.build.call("aten.native_layer_norm.default", x, [width], weight, bias, 1e-6, outs)
        return out

    def tokens(self, x: Ref) -> Ref:
        images, width, *sizes = self._dims[x.id]
        places = math.prod(sizes)
        first = np.tile(self.weights.vector(width), (images, 1, 1))
        position = np.stack([self.weights.vector(width) for _ in range(1 + places)])[None]
        flat = self._call((images, width, places), "aten.view_copy.default", x, [images, width, places])
        rows = self._call((images, places, width), "aten.permute_copy.default", flat, [0, 2, 1])
        dims = (images, 1 + places, width)
        joined = self._call(dims, "aten.cat.default", [self.build.constant(first), rows], 1)
        return self._call(dims, "aten.add.Tensor", joined, position, 1)

    def attention(self, qkv: Ref, heads: int) -> Ref:
        images, rows, wide = self._dims[qkv.id]
        width = wide // 3
        head_dim = width // heads
        dims, by_head = (images, rows, width), (images, heads, rows, head_dim)
        parts = []
        for start in range(0, wide, width):
            part = self._call(dims, "aten.slice_copy.Tensor", qkv, 2, start, start + width, 1)
            split = (images, rows, heads, head_dim)
            part = self._call(split, "aten.view_copy.default", part, list(split))
            parts.append(self._call(by_head, "aten.permute_copy.default", part, [0, 2, 1, 3]))
        attended = self._call(by_head, "et_vk.sdpa.default", *parts, None, None)
        merged = self._call((images, rows, heads, head_dim), "aten.permute_copy.default", attended, [0, 2, 1, 3])
        return self._call(dims, "aten.view_copy.default", merged, list(dims))

    def first(self, x: Ref) -> Ref:
        images, _, width = self._dims[x.id]
        return self._call((images, width), "aten.select_copy.int", x, 1, 0)

    def _call(self, dims: Dims, op: str, *args: object) -> Ref:
        out = self._known(self.build.tensor(dims), dims)
        self.build.call(op, *args, out)
        return out

    def _known(self, ref: Ref, dims: Dims) -> Ref:
        self._dims[ref.id] = dims
        return ref


@dataclass(frozen=True)
class Case:
    """What is measured: a model, or one of its layers, for ``batch`` images of ``size``."""

    batch: int
    size: int
    model: str = ""
    layer: Conv | None = None

    @property
    def dims(self) -> Dims:
        """Of the input."""
        return (self.batch, 3 if self.layer is None else self.layer.inputs, self.size, self.size)

    @property
    def name(self) -> str:
        layer = self.layer
        if layer is None:
            return f"{self.model} {self.size}"
        kind = f" in {layer.groups} groups" if layer.groups > 1 else ""
        return f"{layer.inputs}->{layer.outputs} {layer.kernel}x{layer.kernel}/{layer.stride} at {self.size}{kind}"

    @property
    def operations(self) -> int:
        """Multiplications and additions of a layer."""
        layer = self.layer
        if layer is None:
            return 0
        return 2 * self.batch * math.prod(layer.weight_dims) * layer.size(self.size) ** 2

    def x(self) -> Array:
        return np.random.default_rng(1).standard_normal(self.dims, np.float32)


class VisionProgram:
    """A case on a device. Close it, or use it as a context manager; ``executor`` makes programs with other tunings."""

    def __init__(self, device: Device, case: Case) -> None:
        self.device, self.case = device, case
        self._graph, _ = fuse_graph(build_graph(described(case)), tuple(FUSIONS))
        self._constants = ConstantPool(device, lambda view: None)

    @contextmanager
    def executor(
        self, routes: Mapping[str, str], tunings: Mapping[str, object], matmul_precision: str = "highest"
    ) -> Iterator[GraphExecutor]:
        features, limits = self.device.features, self.device.limits
        planning = Planning(features, limits, routes, matmul_precision=matmul_precision, tunings=tunings)
        made = GraphExecutor(self._graph, self._constants, planning)
        try:
            yield made
        finally:
            made.close()

    def run(self, executor: GraphExecutor) -> Array:
        return np.asarray(executor.execute([self.case.x()])[0])


def commands(executor: GraphExecutor) -> list[Command]:
    return [command for of_call in executor.commands for command in of_call]


def described(case: Case) -> VkGraph:
    net = GraphNet()
    x = net.input(case.dims)
    out = MODELS[case.model](net, x) if case.layer is None else net.conv(x, case.layer)
    assert isinstance(out, Ref)
    net.build.output(out)
    return net.build.build()
