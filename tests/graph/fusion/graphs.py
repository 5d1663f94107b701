"""Graphs to fuse, and both forms of a graph held against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.fusion import fuse_graph
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.ops.plan import Planning
from tests.graph_builder import GraphBuilder, Ref
from tests.ops.harness import assert_close

Given = Sequence[np.ndarray]
rng = np.random.default_rng(11)

FUSED_LINEAR = "et_webgpu.fused_linear.default"


def normal(*dims: int) -> np.ndarray:
    return rng.standard_normal(dims, dtype=np.float32)


def fused(build: GraphBuilder, *names: str) -> Graph:
    """The built graph after these passes."""
    graph, _ = fuse_graph(build_graph(build.build()), names)
    return graph


def names(graph: Graph) -> Counter[str]:
    """How often each operator is called."""
    return Counter(call.name for call in graph.calls)


def is_unchanged(build: GraphBuilder, *passes: str) -> bool:
    """Whether these passes leave the graph as it is."""
    before, after = build_graph(build.build()), fused(build, *passes)
    return [call.name for call in before.calls] == [call.name for call in after.calls]


def check(device: Device, build: GraphBuilder, passes: Iterable[str], steps: Iterable[Given]) -> Graph:
    """Fused and unfused agree: in float64 on the host exactly, and on the device within its tolerance."""
    graph = fused(build, *passes)
    check_same(device, build_graph(build.build()), graph, steps)
    return graph


def check_same(device: Device, before: Graph, after: Graph, steps: Iterable[Given]) -> None:
    """Two graphs agree: in float64 on the host exactly, and the second one on the device within its tolerance."""
    expected, in_float64 = ReferenceExecutor(before), ReferenceExecutor(after)
    executor = GraphExecutor(after, ConstantPool(device, lambda view: None), Planning(device.features, device.limits))
    try:
        for given in steps:
            wanted = expected.execute(given)
            for got, exact, value in zip(executor.execute(given), in_float64.execute(given), wanted, strict=True):
                np.testing.assert_allclose(exact, value, rtol=1e-9, atol=1e-12)
                assert_close(got, value)
    finally:
        executor.close()


class Model(GraphBuilder):
    """A graph over rows [1, S, width] of a live length, with short forms of what models call."""

    def __init__(self, width: int = 16, most: int = 7) -> None:
        super().__init__()
        self.width, self.most = width, most
        self.x = self.input((1, most, width))
        self.length = self.size_of(self.x, 1)

    def rows(self, width: int | None = None, dtype: str = "float32") -> Ref:
        """A new tensor for results."""
        return self.tensor((1, self.most, width or self.width), dtype)

    def norm(self, x: Ref, out: Ref | None = None) -> Ref:
        weight = 1 + np.float32(0.1) * normal(self.width)
        return self.call("et_vk.rms_norm.default", x, weight, 1e-5, out or self.rows())

    def linear(self, x: Ref, width: int | None = None, bias: bool = False, out: Ref | None = None) -> Ref:
        """Of rows of the model's width."""
        n = width or self.width
        weight = normal(n, self.width) / np.float32(self.width**0.5)
        return self.call("aten.linear.default", x, weight, normal(n) if bias else None, out or self.rows(n))

    def view(self, x: Ref, *sizes: Ref | int, dims: Sequence[int] | None = None) -> Ref:
        bounds = dims or [self.most if isinstance(n, Ref) else n for n in sizes]
        return self.call("aten.view_copy.default", x, list(sizes), self.tensor(bounds))

    def add(self, a: Ref, b: Ref, alpha: float = 1) -> Ref:
        return self.call("aten.add.Tensor", a, b, alpha, self.rows())

    def mul(self, a: Ref, b: Ref) -> Ref:
        return self.call("aten.mul.Tensor", a, b, self.rows())

    def sigmoid(self, x: Ref) -> Ref:
        return self.call("aten.sigmoid.default", x, self.rows())

    def steps(self, *lengths: int) -> list[Given]:
        return [[normal(1, n, self.width)] for n in lengths]
