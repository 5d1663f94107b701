"""What looks for caches, tables and layers asks the operators: names of operators and arguments do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.fusion import fuse_graph
from executorch_webgpu.graph.kv_cache import has_kv_cache
from executorch_webgpu.graph.state import cache_writes
from executorch_webgpu.graph.traffic import StepBytes, step_bytes
from executorch_webgpu.ops import registry
from executorch_webgpu.ops.plan import Planner
from executorch_webgpu.ops.registry import Linear, op
from executorch_webgpu.ops.rows import each_row
from executorch_webgpu.ops.sizes import Shape, Sizes, linear
from executorch_webgpu.ops.values import IntLike, Tensor
from tests.graph_builder import GraphBuilder


@pytest.fixture(autouse=True)
def operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of its own for each test."""
    monkeypatch.setattr(registry, "_OPS", dict(registry._OPS))


def linear_sizes(s: Sizes, x: Tensor, offset: Tensor | None, matrix: Tensor, out: Tensor) -> Shape:
    return linear(s, x, matrix)


def graph_of(name: str, *args: object, dims: tuple[int, ...] = (1,)) -> Graph:
    build = GraphBuilder()
    inputs = [build.input(a) if isinstance(a, tuple) else build.live() if a is int else a for a in args]
    build.output(build.call(name, *inputs, build.tensor(dims)))
    return build_graph(build.build())


def test_caches_and_positions() -> None:
    @op("tests.store", reference=lambda *_: None, caches={"old": "new"}, position="at")
    def store(planner: Planner, new: Tensor, old: Tensor, at: IntLike, out: Tensor) -> None: ...

    @op("tests.other", reference=lambda *_: None, mutates=("k_cache",))
    def other(planner: Planner, k: Tensor, k_cache: Tensor, input_pos: IntLike, out: Tensor) -> None: ...

    cache = np.zeros((1, 8, 2, 4), np.float32)
    graph = graph_of("tests.store", (1, 3, 2, 4), cache, int)
    (write,) = cache_writes(graph)
    new, old, at, _ = graph.calls[-1].args
    assert (write.rows, write.cache, write.position) == (new, old, at)
    assert has_kv_cache(graph) and step_bytes([graph]) == StepBytes(0, cache.nbytes // 8)
    assert not has_kv_cache(graph_of("tests.other", (1, 3, 2, 4), cache, int))


def test_tables_of_which_a_row_is_read() -> None:
    @op("tests.look_up", reference=lambda *_: None, reads_rows_of=("values", "extra"))
    def look_up(planner: Planner, other: Tensor, values: Tensor, extra: Tensor, out: Tensor) -> None: ...

    arrays = [np.ones(dims, np.float32) for dims in ((5,), (10, 4), (20, 1))]
    assert step_bytes([graph_of("tests.look_up", *arrays)]) == StepBytes(4 * 5 + 4 * 4 + 4 * 2, 0)


def test_layers_and_selections() -> None:
    """A selection moves before a linear layer, and the layer becomes a fused one, which has its bias."""

    @op(
        "tests.layer",
        reference=lambda *_: None,
        sizes=linear_sizes,
        rows=each_row,
        linear=Linear("f32", "matrix", bias="offset"),
    )
    def layer(planner: Planner, x: Tensor, offset: Tensor | None, matrix: Tensor, out: Tensor) -> None: ...

    @op("tests.pick", reference=lambda *_: None, selects="axis")
    def pick(planner: Planner, x: Tensor, index: int, axis: int, out: Tensor) -> None: ...

    build = GraphBuilder()
    x, bias, matrix = build.input((1, 7, 16)), np.ones(5, np.float32), np.ones((5, 16), np.float32)
    normed = build.call("et_vk.rms_norm.default", x, np.ones(16, np.float32), 1e-5, build.tensor((1, 7, 16)))
    logits = build.call("tests.layer", normed, bias, matrix, build.tensor((1, 7, 5)))
    build.output(build.call("tests.pick", logits, -1, 1, build.tensor((1, 5))))
    graph, _ = fuse_graph(build_graph(build.build()), ("last_row", "norm_linear"))
    assert [call.name for call in graph.calls] == ["tests.pick", "et_webgpu.fused_linear.default"]
    arguments = graph.calls[-1].named
    assert [len(arguments[name]) for name in ("weights", "scales", "biases")] == [1, 0, 1]
    assert arguments["biases"][0].max_dims == (5,) and arguments["norm_weight"].max_dims == (16,)
