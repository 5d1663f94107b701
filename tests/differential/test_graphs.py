"""A slice of the random graphs, and that wrong kernels and wrong passes are found by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops import registry
from executorch_webgpu.ops.registry import names

from . import graphs, graphs_run
from .graphs_draw import UNDRAWN, draw, drawn_operators
from .graphs_run import wrong_with
from .graphs_shrink import shrunk

pytestmark = pytest.mark.slow
SEED, COUNT = 13, 30


@pytest.fixture(autouse=True)
def one_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "device", lambda: device)


def test_random_graphs_are_right() -> None:
    wrong = [found for found in graphs.run(SEED, range(COUNT)) if found.wrong is not None]
    assert not wrong, "\n".join(f"{found.number}: {found.wrong}\n{found.graph}" for found in wrong)


def test_every_operator_is_drawn() -> None:
    assert set(drawn_operators()) | UNDRAWN == set(names())
    missed = [op for op in drawn_operators() if not any(draw((0, n), 1, [op]).calls for n in range(12))]
    assert not missed


def test_a_graph_is_the_same_for_the_same_seed() -> None:
    assert str(draw((3, 1), 8)) == str(draw((3, 1), 8)) != str(draw((3, 2), 8))


def test_a_wrong_kernel_is_found_and_made_small(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the kernel were: a reference that is wrong from the third column on."""
    name = "aten.tanh.default"
    found = registry.find(name)
    assert found is not None
    right = found.reference

    def reference(x: Any) -> Any:
        result = np.array(right(x))
        if result.ndim and result.shape[-1] > 2:
            result[..., 2:] += 0.25
        return result

    monkeypatch.setitem(registry._OPS, name, replace(found, reference=reference))
    operators = [name, "aten.neg.default", "aten.add.Tensor", "aten.permute_copy.default"]
    drawn = [draw((0, number), 6, operators) for number in range(6)]
    graph, wrong = next((graph, wrong) for graph in drawn if (wrong := wrong_with(graph, device)) is not None)
    assert wrong.operator == name
    small = shrunk(graph, lambda smaller: wrong_with(smaller, device, fuse=False))
    assert [call.op for call in small.calls] == [name] and small.count == 1
    assert "build.call('aten.tanh.default', x0, build.tensor(" in str(small)


def test_a_wrong_pass_is_found(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes x + y for x + 2y."""

    def fuse(graph: Any, passes: Any) -> tuple[Any, None]:
        calls = [
            replace(call, args=(*call.args[:2], 2, *call.args[3:])) if call.name == "aten.add.Tensor" else call
            for call in graph.calls
        ]
        return replace(graph, calls=tuple(calls)), None

    monkeypatch.setattr(graphs_run, "fuse_graph", fuse)
    found = [wrong_with(draw((0, number), 3, ["aten.add.Tensor"]), device) for number in range(4)]
    assert "fusion" in {wrong.check for wrong in found if wrong is not None}
