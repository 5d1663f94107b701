"""The page of a program's graphs: every call and value of programs of all kinds, and safe whatever names there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_webgpu import LoadOptions, Runtime
from executorch_webgpu.format import program_schema as schema
from executorch_webgpu.format.pte import write_program
from executorch_webgpu.format.vkgraph import write_vkgraph
from executorch_webgpu.graph.binding_limit import split_constants
from executorch_webgpu.graph.build import PREPACK, Graph, build_graph
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.graph.fusion.origins import fused_with_origins
from executorch_webgpu.graph.lowering.segments import DeviceSegment
from executorch_webgpu.report.graph_data import graph_data
from executorch_webgpu.report.graph_page import graph_page, write_graph_page
from executorch_webgpu.runtime.graphs import PlannedGraph, planned_segment
from tests.differential.graphs_draw import draw
from tests.graph_builder import GraphBuilder
from tests.programs import delegate_plan
from tests.report.browser import drawn, opened
from tests.report.pages import HOSTILE, checked_page

DATA = Path(__file__).parents[1] / "data"
PROGRAMS = sorted([*(DATA / "programs").glob("*.pte"), *(DATA / "engine").glob("*.pte")])


def check_data(planned: PlannedGraph) -> dict[str, Any]:
    """The data of a graph, after checks that it is whole."""
    operators: dict[str, Any] = {}
    data = graph_data(planned, operators)
    calls = [call for call in planned.graph.calls if call.name != PREPACK]
    assert [(call["index"], call["name"]) for call in data["calls"]] == [(call.index, call.name) for call in calls]
    for told, call in zip(data["calls"], calls, strict=True):
        assert {*told["reads"], *told["writes"], *told["changes"]} <= data["values"].keys()
        assert [d["kernel"] for d in told["dispatches"]] == [d.kernel for d in planned.plans[call.index].dispatches]
        assert told["name"] in operators and told.get("route") == planned.plans[call.index].route
    memory = data["memory"]
    assert max(memory["alive"], default=0) == planned.memory.peak_bytes and memory["alive"][-1] >= 0
    busy: dict[int, list[tuple[int, int]]] = {}
    for _, slot, first, last, nbytes in memory["tenants"]:
        assert nbytes <= memory["slots"][slot]
        assert all(last < begin or end < first for begin, end in busy.setdefault(slot, [])), "one tensor at a time"
        busy[slot].append((first, last))
    assert {*data["inputs"], *data["outputs"]} <= data["values"].keys()
    assert all(planned.origins[call.index] for call in calls), "each call comes from the program"
    assert {i for of_call in planned.origins for i in of_call} <= {call.index for call in planned.before.calls}
    end = 0
    for start, period, count in data["repeats"]:
        assert start >= end and (end := start + period * count) <= len(data["calls"])
    return data


@pytest.mark.slow
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_saved_programs(path: Path) -> None:
    with Runtime.get().load_program(path) as program:
        text, data = checked_page(graph_page(program, path.name))
        found = [program.graphs(name) for name in sorted(program.method_names)]
        stages = [stage for method in found for stage in method.stages if isinstance(stage, PlannedGraph)]
        assert len(data["graphs"]) == len(stages)
        for stage in stages:
            check_data(stage)
        for method in found:
            assert method.metadata.name in text
            assert method.problem is None or " ".join(method.problem.split()) in " ".join(text.split())


def segment_of(graph: Graph) -> DeviceSegment:
    return DeviceSegment(graph, tuple(None for _ in graph.inputs), (), frozenset())


@pytest.mark.parametrize("number", range(40))
def test_random_graphs(number: int) -> None:
    graph = build_graph(draw((5, number), 8).described())
    check_data(planned_segment(segment_of(graph), LoadOptions(), None, {}, ()))


@pytest.mark.slow
def test_origins_follow_the_passes() -> None:
    """The graph is that of the passes, and what no pass touches comes from itself."""
    with Runtime.get().load_program(DATA / "engine" / "llama_quantized.pte") as program:
        (stage,) = program.graphs("forward").stages
    assert isinstance(stage, PlannedGraph)
    fused, _ = fuse_graph(stage.before, tuple(FUSIONS))
    again, origins = fused_with_origins(stage.before, tuple(FUSIONS))
    assert [call.name for call in again.calls] == [call.name for call in fused.calls]
    names = {call.index: call.name for call in stage.before.calls}
    for call, of_call in zip(again.calls, origins, strict=True):
        if call.name in names.values() and not call.op.view:
            assert call.name in {names[index] for index in of_call}
    assert any(len(of_call) > 1 for of_call in origins) and len(again.calls) < len(names)
    kept, same = fused_with_origins(stage.before, ())
    assert kept is stage.before and same == tuple((call.index,) for call in kept.calls)


def test_constants_that_are_cut_come_from_the_same_call() -> None:
    build = GraphBuilder()
    x = build.input((2, 64))
    weight = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
    build.output(build.call("aten.linear.default", x, weight, None, build.tensor((2, 256))))
    graph = build_graph(build.build())
    cut, origins = fused_with_origins(graph, (), lambda graph: split_constants(graph, weight.nbytes // 4))
    assert len(cut.calls) > len(graph.calls) == 1 and set(origins) == {(0,)}


def layers(count: int) -> GraphBuilder:
    """As many layers of six calls, over a live number of rows."""
    build = GraphBuilder()
    x = build.input((8, 6))
    for _ in range(count):
        y = build.call("aten.mm.default", x, np.eye(6, dtype=np.float32), build.tensor((8, 6)))
        y = build.call("aten.sum.dim_IntList", y, [1], True, None, build.tensor((8, 1)))
        y = build.call("aten.mm.default", y, np.ones((1, 6), np.float32), build.tensor((8, 6)))
        y = build.call("aten.cat.default", [y, x], 1, build.tensor((8, 12)))
        y = build.call("aten.mm.default", y, np.ones((12, 6), np.float32), build.tensor((8, 6)))
        x = build.call("aten.add.Tensor", y, x, 1, build.tensor((8, 6)))
    build.output(x)
    return build


def program_of(build: GraphBuilder, *names: str, dynamic: tuple[int, ...] = (0,)) -> bytes:
    blob = write_vkgraph(build.build(), [array.tobytes() for array in build.constants])
    dtypes = ["float32"] * (len(build.inputs) + len(build.outputs))
    plans = tuple(delegate_plan(build, dtypes, dynamic, name) for name in names)
    return write_program(schema.Program(execution_plan=plans), [blob])


@pytest.mark.slow
def test_layers_that_are_alike_are_folded(tmp_path: Path) -> None:
    with Runtime.get().load_program(program_of(layers(9), "forward")) as program:
        (stage,) = program.graphs("forward").stages
        assert isinstance(stage, PlannedGraph)
        data = check_data(stage)
        ((start, period, count),) = data["repeats"]
        assert (start, count) == (0, 9) and period * count == len(data["calls"])
        assert data["symbols"] == {"S": 8}
        assert all(data["values"][call["writes"][0]]["dims"][0] == "S" for call in data["calls"])
        write_graph_page(program, "layers", tmp_path / "g.html")
    document = opened(tmp_path / "g.html", tmp_path, f"#graph-0/{data['calls'][period + 1]['index']}")
    assert drawn(document) == period + 2, "one layer, an input and an output"
    assert f"{count} layers alike" in document
    selected = re.search(r"<aside.*?</aside>", document, re.DOTALL)
    assert selected is not None and "2 of 9" in selected[0] and data["calls"][period + 1]["name"] in selected[0]


@pytest.mark.slow
def test_a_decoder_with_its_caches(tmp_path: Path) -> None:
    with Runtime.get().load_program(DATA / "engine" / "llama_quantized.pte") as program:
        text, data = checked_page(graph_page(program, "llama", LoadOptions(kv_cache_dtype="f32")))
        write_graph_page(program, "llama", tmp_path / "g.html", on_device=True)
    kinds = {value["kind"] for graph in data["graphs"] for value in graph["values"].values()}
    assert {"input", "constant", "tensor"} <= kinds and kinds & {"cache", "state"}
    assert "the least that WebGPU promises" in text
    page = (tmp_path / "g.html").read_text()
    assert Runtime.get().device.info.name in checked_page(page)[0]
    assert drawn(opened(tmp_path / "g.html", tmp_path)) > 10


def test_without_fusion_calls_are_those_of_the_program() -> None:
    with Runtime.get().load_program(DATA / "programs" / "r12230_cross.pte") as program:
        _, data = checked_page(graph_page(program, "p", LoadOptions(fuse=False)))
    assert all("from" not in call for graph in data["graphs"] for call in graph["calls"])


@pytest.mark.slow
def test_names_of_strangers_stay_text(tmp_path: Path) -> None:
    build = GraphBuilder()
    x = build.input((2, 3))
    build.output(build.call("aten.gelu.default", x, HOSTILE, build.tensor((2, 3))))
    bad = GraphBuilder()
    y = bad.input((2, 3))
    bad.output(bad.call(HOSTILE, y, bad.tensor((2, 3))))
    for number, made in enumerate((build, bad, layers(1))):
        with Runtime.get().load_program(program_of(made, HOSTILE, "forward", dynamic=())) as program:
            text, _ = checked_page(graph_page(program, HOSTILE))
            assert text.count(HOSTILE) >= 2
            write_graph_page(program, HOSTILE, tmp_path / f"{number}.html")
    for number in (1, 2):
        document = opened(tmp_path / f"{number}.html", tmp_path)
        assert "data-owned" not in document.split("<body")[0] and "<title>owned" not in document
