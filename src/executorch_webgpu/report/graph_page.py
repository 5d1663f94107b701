"""A program's graphs as one HTML file: calls after fusion with what flows between them, and how memory is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime import LoadOptions, Program
from ..runtime.graphs import HostStage, MethodGraphs, PlannedGraph
from ..runtime.metadata import MethodReport
from .graph_data import graph_data
from .page import render, size, write_page


@dataclass(frozen=True)
class _Shown:
    """A method in the page. ``drawn``: its graphs, whose numbers are places in the page's data."""

    name: str
    report: MethodReport
    problem: str | None
    stages: tuple[dict[str, Any], ...]


def write_graph_page(
    program: Program, source: str, path: str | Path, options: LoadOptions | None = None, *, on_device: bool = False
) -> None:
    """Write the page. ``options``, ``on_device``: as ``Program.graphs`` takes them. Raises OSError, NoAdapterError."""
    write_page(path, graph_page(program, source, options, on_device=on_device))


def graph_page(program: Program, source: str, options: LoadOptions | None = None, *, on_device: bool = False) -> str:
    """The whole page: all methods of a program, those that have graphs first."""
    options = options or LoadOptions()
    inspected = program.inspect(options.fusions)
    reports = {method.name: method for method in inspected.methods}
    graphs: list[dict[str, Any]] = []
    operators: dict[str, Any] = {}
    methods: list[_Shown] = []
    for name, report in reports.items():
        found = program.graphs(name, options, on_device=on_device)
        stages = tuple(_stages(found, graphs, operators))
        methods.append(_Shown(name, report, found.problem or report.problem, stages))
    plain = [method for method in methods if not method.stages and method.problem is None]
    values = {
        "title": f"Graph of {source}",
        "source": source,
        "methods": methods,
        "drawn": [method for method in methods if method not in plain],
        "others": plain,
        "graphs": graphs,
        "options": options,
        "planned_for": _planned_for(program, on_device),
        "files": inspected.files,
    }
    return render("graph.html.jinja", "graph.js", {"graphs": graphs, "operators": operators}, values)


def _stages(found: MethodGraphs, graphs: list[dict[str, Any]], operators: dict[str, Any]) -> Sequence[dict[str, Any]]:
    stages: list[dict[str, Any]] = []
    for block, stage in zip(found.blocks, found.stages, strict=True):
        if isinstance(stage, HostStage):
            stages.append({"kind": "host", "block": block, "operations": stage.operations})
            continue
        stages.append({"kind": "device", "block": block, "graph": len(graphs), "facts": _facts(stage)})
        graphs.append(graph_data(stage, operators))
    return stages


def _facts(stage: PlannedGraph) -> list[tuple[str, str]]:
    """What is said of a graph above its picture."""
    memory = stage.memory
    dispatches = sum(len(plan.dispatches) for plan in stage.plans)
    facts = [
        (f"{len(stage.graph.calls):,}", f"calls after fusion, of {len(stage.before.calls):,} in the program"),
        (f"{dispatches:,}", "dispatches at the largest sizes"),
    ]
    constants = {stage.graph.constants[id].key: t for id, t in _constants(stage).items()}
    if constants:
        facts.append((size(sum(t.max_nbytes for t in constants.values())), f"in {len(constants):,} constants"))
    if memory.planned_bytes:
        alive, unshared = size(memory.peak_bytes), size(memory.unshared_bytes)
        shared = f"for intermediate tensors; {alive} alive at once, {unshared} if they did not share"
        facts.append((size(memory.planned_bytes), shared))
    kept = sum(s.nbytes for s in memory.storages if s.kind.value == "mutable")
    if kept:
        facts.append((size(kept), "kept from call to call, such as KV caches"))
    return facts


def _constants(stage: PlannedGraph) -> dict[int, Any]:
    """Constants that calls read, by id."""
    tensors = {t.id: t for call in stage.graph.calls for t in call.inputs}
    mutated = {t.id for call in stage.graph.calls for t in call.mutated}
    packed = stage.graph.prepacked
    mutated |= {packed[id].id for id in mutated if id in packed}
    return {id: t for id, t in tensors.items() if id in stage.graph.constants and id not in mutated}


def _planned_for(program: Program, on_device: bool) -> str:
    return program.adapter_name if on_device else "the least that WebGPU promises, whatever the adapter"
