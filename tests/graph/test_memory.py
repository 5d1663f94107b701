"""The memory plan: tensors that live at the same time never share, and aliases are safe."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.memory import Kind, alias_roots, plan_memory
from executorch_webgpu.ops.plan import Planning
from tests.graph_builder import GraphBuilder

PLANNING = Planning(Features.none(), Limits.floor())


@st.composite
def graphs(draw: st.DrawFn) -> GraphBuilder:
    """Random graphs of unary calls, additions and views over tensors of 24 elements."""
    build = GraphBuilder()
    values = [build.input((4, 6)) for _ in range(draw(st.integers(1, 3)))]
    for _ in range(draw(st.integers(1, 30))):
        x = values[draw(st.integers(max(0, len(values) - 4), len(values) - 1))]
        match draw(st.sampled_from(["unary", "binary", "view"])):
            case "unary":
                out = build.call("aten.sigmoid.default", x, build.tensor((4, 6)))
            case "binary":
                y = values[draw(st.integers(0, len(values) - 1))]
                out = build.call("aten.add.Tensor", x, y, 1, build.tensor((4, 6)))
            case _:
                out = build.call("aten.view_copy.default", x, [4, 6], build.tensor((4, 6)))
        values.append(out)
    build.output(*draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)))
    return build


@given(graphs())
def test_values_that_are_needed_later_are_not_overwritten(build: GraphBuilder) -> None:
    graph = build_graph(build.build())
    plans = plan_graph(graph, PLANNING)
    memory = plan_memory(graph, plans.plans)
    holder = {memory.storage_of[t.id]: t.id for t in graph.inputs}
    roots = {k: v.id for k, v in alias_roots(graph, plans.plans).items()}
    for call, plan in zip(graph.calls, plans.plans, strict=True):
        for tensor in call.inputs:
            assert holder[memory.storage_of[tensor.id]] == roots.get(tensor.id, tensor.id)
        if plan.alias_of is None:
            for out in call.outputs:
                assert memory.storage_of[out.id] not in {memory.storage_of[t.id] for t in call.inputs}
                holder[memory.storage_of[out.id]] = out.id
    for out in graph.outputs:
        assert holder[memory.storage_of[out.id]] == roots.get(out.id, out.id)


def test_a_chain_needs_two_slots() -> None:
    build = GraphBuilder()
    x = build.input((1000,))
    for _ in range(50):
        x = build.call("aten.sigmoid.default", x, build.tensor((1000,)))
    build.output(x)
    graph = build_graph(build.build())
    memory = plan_memory(graph, plan_graph(graph, PLANNING).plans)
    assert memory.bytes_of(Kind.SHARED) == 2 * 4000
    assert memory.unshared_bytes == 50 * 4000


def test_a_view_of_memory_that_is_written_becomes_a_copy() -> None:
    build = GraphBuilder()
    cache = build.constant(np.zeros((1, 8, 1, 4), np.float32))
    before = build.call("aten.view_copy.default", cache, [8, 4], build.tensor((8, 4)))
    value = build.input((1, 2, 1, 4))
    build.call("update_cache.default", value, cache, 0, build.tensor((1, 8, 1, 4)))
    build.output(before)
    graph = build_graph(build.build())
    plans = plan_graph(graph, PLANNING)
    memory = plan_memory(graph, plans.plans)
    assert plans.plans[0].alias_of is None
    assert memory.storage_of[before.id] != memory.storage_of[cache.id]
    assert memory.storages[memory.storage_of[cache.id]].kind is Kind.MUTABLE
