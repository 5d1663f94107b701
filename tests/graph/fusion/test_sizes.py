"""What is known of sizes: equal symbols are equal in every step, and what may differ does differ here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu.errors import Error
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.graph.fusion.dataflow import sizes_of
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.sizes import Shape
from executorch_webgpu.ops.values import Tensor
from tests.graph.test_reference import RandomGraph
from tests.graph_builder import GraphBuilder, Ref

from .graphs import Model, normal

PLANNING = Planning(Features.none(), Limits.floor())


def tensors(graph: Graph) -> dict[int, Tensor]:
    return {t.id: t for call in graph.calls for t in (*call.inputs, *call.outputs)}


def sizes(build: GraphBuilder, *refs: Ref) -> list[Shape]:
    graph = build_graph(build.build())
    known = sizes_of(graph)
    return [known.of(tensors(graph)[ref.id]) for ref in refs]


def check_against_plans(graph: Graph, inputs: list[np.ndarray]) -> None:
    """In a step, known sizes are those of the plans, and equal symbols stand for equal ones."""
    known = sizes_of(graph)
    plans = plan_graph(graph, PLANNING)
    for value, array in zip(graph.inputs, inputs, strict=True):
        assert isinstance(value, Tensor)
        plans.set_dims(value, array.shape)
        if value.dtype == "int32":
            plans.set_host(value, array)
    plans.update()
    seen: dict = {}
    for tensor in tensors(graph).values():
        for size, live in zip(known.of(tensor), plans.tensor(tensor).dims, strict=True):
            assert seen.setdefault(size, live) == live
            assert not isinstance(size, int) or size == live


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 11))
def test_random_graphs(seed: int, rows: int) -> None:
    random = RandomGraph(seed)
    for passes in ((), tuple(FUSIONS)):
        graph, _ = fuse_graph(build_graph(random.build.build()), passes)
        check_against_plans(graph, random.inputs(rows))


@pytest.mark.parametrize("passes", [(), tuple(FUSIONS)], ids=["plain", "fused"])
@pytest.mark.parametrize("embedding", ["f32", "q4gsw"])
def test_a_llama(tmp_path: Path, embedding: str, passes: tuple[str, ...]) -> None:
    """Every size of a language model follows from the number of its tokens, but for that of the rope tables' slices."""
    options = LlamaOptions(embedding=embedding, max_seq_len=9, max_context_len=16)  # type: ignore[arg-type]
    write_llama(tmp_path / "m.pte", SHAPES["tiny"], options)
    file = read_program((tmp_path / "m.pte").read_bytes())
    source = read_vkgraph(file.delegate_data(file.methods[0].delegates[0]), file.named_data)
    graph, _ = fuse_graph(build_graph(source), passes)
    tokens, known = graph.inputs[0], sizes_of(graph)
    symbols = {size for t in tensors(graph).values() for size in known.of(t) if not isinstance(size, int)}
    assert len(symbols - {(tokens.id, 1)}) == (0 if passes else 2)
    check_against_plans(graph, [np.zeros((1, 5), np.int32), np.array([3], np.int32)])


def test_layers_state_how_wide_their_input_is() -> None:
    build = Model()
    build.output(build.norm(build.x))
    assert sizes(build, build.x)[0][2] == 16


def test_a_view_with_an_open_size() -> None:
    build = Model()
    x = build.linear(build.x)
    flat = build.view(x, -1, 16, dims=(7, 16))
    halves = build.view(x, -1, 8, dims=(14, 8))
    folded = build.view(x, 1, build.length, -1, dims=(1, 7, 16))
    build.output(flat, halves, folded)
    of_x, of_flat, of_halves, of_folded = sizes(build, x, flat, halves, folded)
    assert of_x[1:] == of_flat == of_folded[1:]
    assert of_halves[0] not in of_x and not isinstance(of_halves[0], int)


@pytest.mark.parametrize("live", [False, True], ids=["number", "input"])
def test_a_view_states_what_a_size_is(live: bool) -> None:
    """Of a program whose sizes are numbers, and of one that takes its length as an input."""
    build = GraphBuilder()
    length, weight = build.live() if live else 7, normal(16, 16)
    x = build.input((1, 7, 16))
    layer = build.call("aten.linear.default", x, weight, None, build.tensor((1, 7, 16)))
    heads = build.call("aten.view_copy.default", layer, [1, length, 2, 8], build.tensor((1, 7, 2, 8)))
    build.output(heads)
    of_x, of_layer, of_heads = sizes(build, x, layer, heads)
    assert of_x[1] == of_layer[1] == of_heads[1]
    assert (of_x[1] == 7) is not live


def test_broadcasting_does_not_make_sizes_equal() -> None:
    """Both have room for seven rows, but one of them may have a single one."""
    build = Model()
    other = build.input((1, 7, 16))
    both = build.add(build.x, other)
    build.output(both)
    assert len({size[1] for size in sizes(build, build.x, other, both)}) == 3


def test_sizes_of_one_come_and_go() -> None:
    build = Model()
    wide = build.call("aten.unsqueeze_copy.default", build.x, 1, build.tensor((1, 1, 7, 16)))
    thin = build.call("aten.squeeze_copy.dims", wide, [0, 1], build.tensor((7, 16)))
    last = build.call("aten.select_copy.int", build.x, 1, -1, build.tensor((1, 16)))
    build.output(wide, thin, last)
    x, of_wide, of_thin, of_last = sizes(build, build.x, wide, thin, last)
    assert (of_wide, of_thin, of_last) == ((1, *x), x[1:], (x[0], x[2]))


@pytest.mark.parametrize("size", [[7], [7, 16, 1, 1], [-1, -1, 16], [0, -1, 16], [1, 7, 17]])
def test_views_that_cannot_be_are_left_to_planning(size: list[int]) -> None:
    build = GraphBuilder()
    build.output(build.call("aten.view_copy.default", normal(1, 7, 16), size, build.tensor((1, 7, 16))))
    sizes_of(build_graph(build.build()))
    with pytest.raises(Error):
        plan_graph(build_graph(build.build()), PLANNING)
