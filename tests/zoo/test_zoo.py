"""Models that are not language models, exported by the stock tools, against torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.report.graph_page import graph_page
from executorch_webgpu.runtime.graphs import PlannedGraph
from tests.report.pages import checked_page
from tests.report.test_graph_page import check_data
from tests.zoo.chosen import CHOSEN
from tests.zoo.files import judged

PROGRAMS = [(name, variant) for name, variants in CHOSEN.items() for variant in variants]


@pytest.mark.parametrize(("name", "variant"), PROGRAMS)
def test_answers_as_torch_does(zoo: Callable[[str, str], Path], name: str, variant: str) -> None:
    outcome = judged(zoo(name, variant))
    assert (outcome.kind, outcome.detail) == ("right", "")


@pytest.mark.parametrize(("name", "variant"), PROGRAMS[::4])
def test_its_graphs_are_drawn(zoo: Callable[[str, str], Path], name: str, variant: str) -> None:
    with Runtime.get().load_program(zoo(name, variant)) as program:
        text, data = checked_page(graph_page(program, name))
        stages = [stage for method in program.method_names for stage in program.graphs(method).stages]
    assert name in text and data["graphs"]
    for stage in stages:
        if isinstance(stage, PlannedGraph):
            check_data(stage)
