"""The memory plan: tensors that live at the same time never share, and aliases are safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, zip_longest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.kernel import render
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.graph.memory import Kind, MemoryPlan, alias_roots, plan_memory
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops.plan import OpPlan, Planning
from executorch_webgpu.ops.values import Scratch, Tensor
from tests.graph.test_reference import RandomGraph
from tests.graph_builder import GraphBuilder, Ref

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
    for result in graph.outputs:
        assert holder[memory.storage_of[result.id]] == roots.get(result.id, result.id)


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


# -- what any plan must keep to ---------------------------------------------------------------------------------------


@st.composite
def graphs_of_many_sizes(draw: st.DrawFn) -> GraphBuilder:
    """Tensors of several sizes, made from each other, with views of them, and read again much later."""
    build = GraphBuilder()
    values = [(build.input((n,)), n) for n in (5, 16, 60)]
    for _ in range(draw(st.integers(1, 25))):
        (x, n), (y, m) = (draw(st.sampled_from(values[-6:])) for _ in "xy")
        match draw(st.sampled_from(["neg", "view", "join", "part"])):
            case "neg":
                made, size = build.call("aten.neg.default", x, build.tensor((n,))), n
            case "view":
                made, size = build.call("aten.view_copy.default", x, [n], build.tensor((n,))), n
            case "join":
                made, size = build.call("aten.cat.default", [x, y], 0, build.tensor((n + m,))), n + m
            case _:
                size = max(1, n // 2)
                made = build.call("aten.slice_copy.Tensor", x, 0, 0, size, 1, build.tensor((size,)))
        values.append((made, size))
    outputs = draw(st.lists(st.sampled_from(values[3:]), min_size=1, max_size=3, unique=True))
    build.output(*(ref for ref, _ in outputs))
    return build


def planned(graph: Graph) -> tuple[Sequence[OpPlan], MemoryPlan]:
    plans = plan_graph(graph, PLANNING).plans
    return plans, plan_memory(graph, plans)


def alive_at(graph: Graph, plans: Sequence[OpPlan], memory: MemoryPlan) -> list[dict[int, Tensor]]:
    """The intermediates, by the id of the tensor whose memory they are, that hold something at each call."""
    roots = alias_roots(graph, plans)
    touched: dict[int, list[int]] = {}
    tensors: dict[int, Tensor] = {}
    ends = [(len(graph.calls), t) for t in graph.outputs if isinstance(t, Tensor)]
    for index, tensor in [*((c.index, t) for c in graph.calls for t in (*c.inputs, *c.outputs)), *ends]:
        root = roots.get(tensor.id, tensor)
        if memory.storages[memory.storage_of[root.id]].kind is Kind.SHARED:
            tensors[root.id] = root
            touched.setdefault(root.id, []).append(index)
    return [
        {id: tensors[id] for id, calls in touched.items() if min(calls) <= index <= max(calls)}
        for index in range(len(graph.calls) + 1)
    ]


def least_slots(alive: list[dict[int, Tensor]]) -> int:
    """Bytes that no plan with slots can do without: its n-th largest must hold the n-th largest tensor of any call."""
    largest: list[int] = []
    for tensors in alive:
        sizes = sorted((t.max_nbytes for t in tensors.values()), reverse=True)
        largest = [max(pair) for pair in zip_longest(largest, sizes, fillvalue=0)]
    return sum(largest)


def check_plan(graph: Graph) -> None:
    plans, memory = planned(graph)
    alive = alive_at(graph, plans, memory)
    for tensors in alive:
        for a, b in combinations(tensors.values(), 2):
            assert memory.storage_of[a.id] != memory.storage_of[b.id], f"{a} and {b} are alive at once"
        for tensor in tensors.values():
            assert memory.storages[memory.storage_of[tensor.id]].nbytes >= tensor.max_nbytes
    assert memory.peak_bytes == max(sum(t.max_nbytes for t in tensors.values()) for tensors in alive)
    assert memory.peak_bytes <= least_slots(alive) <= memory.planned_bytes <= memory.unshared_bytes
    check_bindings(plans, memory)


def check_bindings(plans: Sequence[OpPlan], memory: MemoryPlan) -> None:
    """No dispatch has a buffer twice where one use writes it."""
    for dispatch in (d for plan in plans for d in plan.dispatches):
        source = render(dispatch.kernel, dispatch.template, "wgpu", Features.none())
        bound: dict[str, object] = {
            name: ("scratch", value.index) if isinstance(value, Scratch) else memory.storage_of[value.id]
            for name, value in dispatch.bindings.items()
            if isinstance(value, Tensor | Scratch)
        }
        for written in (b.name for b in source.bindings if b.access == "read_write"):
            assert list(bound.values()).count(bound[written]) == 1, dispatch


@pytest.mark.slow
@settings(deadline=None)
@given(graphs_of_many_sizes())
def test_tensors_of_many_sizes(build: GraphBuilder) -> None:
    check_plan(build_graph(build.build()))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_graphs(seed: int) -> None:
    for passes in ((), FUSIONS):
        check_plan(fuse_graph(build_graph(RandomGraph(seed).build.build()), passes)[0])


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("passes", [(), tuple(FUSIONS)], ids=["plain", "fused"])
def test_a_language_model(tmp_path: Path, passes: tuple[str, ...], interleaved: bool) -> None:
    """Its slots take no more than any slots must."""
    config = replace(SHAPES["tiny"], rope_interleaved=interleaved)
    write_llama(tmp_path / "m.pte", config, LlamaOptions(max_seq_len=9, max_context_len=16))
    file = read_program((tmp_path / "m.pte").read_bytes())
    source = read_vkgraph(file.delegate_data(file.methods[0].delegates[0]), file.named_data)
    graph, _ = fuse_graph(build_graph(source), passes)
    check_plan(graph)
    plans, memory = planned(graph)
    assert memory.planned_bytes == least_slots(alive_at(graph, plans, memory))


def test_one_tensor_that_waits_is_part_of_the_peak() -> None:
    build = GraphBuilder()

    def neg(x: Ref, n: int) -> Ref:
        return build.call("aten.neg.default", x, build.tensor((n,)))

    waits = neg(build.input((10,)), 10)
    x = neg(neg(build.input((100,)), 100), 100)
    build.output(build.call("aten.cat.default", [waits, x], 0, build.tensor((110,))))
    _, memory = planned(build_graph(build.build()))
    assert memory.peak_bytes == 4 * (10 + 100 + 110)
    assert memory.unshared_bytes == 4 * (10 + 100 + 100 + 110)
