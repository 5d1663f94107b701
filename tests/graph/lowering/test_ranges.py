"""Bounds of what a caller gives: positions of many tokens fit into 32 bits, if the first one is known to."""

from __future__ import annotations

import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.graph.lowering.placement import Placement
from executorch_webgpu.ops.bounds import Range
from tests.llm.exported import FOLDER


def on_host(name: str, bounds: Range | None) -> list[tuple[str, Placement]]:
    with Runtime.get().load_program(FOLDER / f"{name}.pte") as program:
        lowered = program._method("forward").lowered("all", bounds)
        return [(str(o.name), place) for o, place in lowered.placements if not place.on_device]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_slice"])
def test_positions_within_bounds_are_computed_on_the_device(name: str) -> None:
    assert on_host(name, (0, 2**24)) == []
    anything, large = on_host(name, None), on_host(name, (0, 2**31 - 1))
    for found in (anything, large):
        assert found and all(name == "aten::add" or "more than 32 bits" in place.why for name, place in found)


def test_rings_need_the_host_whatever_is_given() -> None:
    assert any("aten::lt" in name for name, _ in on_host("llama_ring", (0, 2**24)))
