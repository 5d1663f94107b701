"""Checked steps: right programs pass, and the first call that is wrong is the one that is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.errors import DivergenceError
from executorch_webgpu.format import vkgraph as vk
from executorch_webgpu.gpu.buffers import upload
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import OpCall, build_graph
from executorch_webgpu.graph.checked import CheckedSteps
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.fusion import chosen_fusions, fuse_graph
from executorch_webgpu.graph.kv_cache import store_kv_caches
from executorch_webgpu.graph.state import GraphState
from executorch_webgpu.ops import registry
from executorch_webgpu.ops.attention.flash_matrix import plan as flash_matrix
from executorch_webgpu.ops.plan import Planning
from tests.graph.test_reference import MOST, RandomGraph, llama, steps
from tests.graph_builder import GraphBuilder
from tests.ops.harness import OpProgram
from tests.ops.matrix_emulation import emulate
from tests.ops.samples import SAMPLES

__all__ = ["llama"]
TILE = flash_matrix.Tile(subgroups=2, workgroup_bytes=0)  # which software adapters have room for


@contextmanager
def checked(
    device: Device,
    described: vk.VkGraph,
    cache: str = "float32",
    fuse: bool = False,
    routes: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    graph = build_graph(described)
    if cache != "float32":
        graph = store_kv_caches(graph, cache)
    if fuse:
        graph, _ = fuse_graph(graph, chosen_fusions(True))
    planning = Planning(device.features, device.limits, routes or {})
    executor = GraphExecutor(graph, ConstantPool(device, lambda view: None), planning, check=True)
    try:
        yield executor
    finally:
        executor.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_right_graphs_pass(device: Device, seed: int) -> None:
    random_graph = RandomGraph(seed)
    with checked(device, random_graph.build.build()) as executor:
        for rows in (MOST, 3, 7):
            executor.execute(random_graph.inputs(rows))


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "fuse"), [("float32", True), ("float16", False), ("int8", True)])
def test_a_language_model_passes(device: Device, llama: vk.VkGraph, cache: str, fuse: bool) -> None:
    with checked(device, llama, cache, fuse) as executor:
        for inputs in steps()[:3]:
            executor.execute(inputs)


@pytest.mark.parametrize("seed", range(6))
def test_attention_on_tensor_cores_passes(
    device: Device, llama: vk.VkGraph, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Probabilities are float16 there, which is more than what products in parts are off by."""
    if not device.features.subgroup_matrix:
        emulate(monkeypatch, device)
        monkeypatch.setattr(flash_matrix, "choose_tile", lambda head_dim: TILE)
    routes = {"sdpa_with_kv_cache": "flash_matrix", "linear_q4gsw": "matrix"}
    with checked(device, llama, "float16", routes=routes) as executor:
        executor.execute(steps(seed)[0])
        assert "flash_matrix" in {plan.route for plan in executor.plans.plans}


def wrong(monkeypatch: pytest.MonkeyPatch, name: str, reference: Callable[..., Any]) -> None:
    """From now on, an operator's reference is another one."""
    found = registry.find(name)
    assert found is not None
    monkeypatch.setitem(registry._OPS, name, replace(found, reference=reference))


def chain() -> GraphBuilder:
    """sigmoid(x) * x, then the negative of that, for x [5, 3]."""
    build = GraphBuilder()
    x = build.input((5, 3))
    gate = build.call("aten.sigmoid.default", x, build.tensor((5, 3)))
    product = build.call("aten.mul.Tensor", gate, x, build.tensor((5, 3)))
    build.output(build.call("aten.neg.default", product, build.tensor((5, 3))))
    return build


def test_the_first_call_that_differs_is_named(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_half(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        product = a * b
        product[2, 1] += 0.5
        product[2, 2] += 0.25
        return product

    wrong(monkeypatch, "aten.mul.Tensor", off_by_half)
    x = np.random.default_rng(0).uniform(-2, 2, (4, 3)).astype(np.float32)
    with checked(device, chain().build()) as executor, pytest.raises(DivergenceError) as error:
        executor.execute([x])
    found = error.value.divergence
    assert found is not None
    assert (found.operator, found.call, found.value) == ("aten.mul.Tensor", 1, "out (%2)")
    assert (found.shape, found.dtype, found.index, found.off) == ((4, 3), "float32", (2, 1), 2)
    assert found.wanted - found.got == pytest.approx(0.5, abs=1e-5) and found.allowed < 0.01
    assert found.kernels == ("elementwise/broadcast",)
    assert str(error.value).startswith("call 1, aten.mul.Tensor(%1:float32[4, 3], %0:float32[4, 3], %2:float32[4, 3])")


def test_an_element_that_nobody_writes_is_found(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where memory still holds what is right, of the step before."""
    x = np.random.default_rng(0).uniform(-2, 2, (5, 3)).astype(np.float32)
    with checked(device, chain().build()) as executor:
        executor.execute([x])
        commands = executor.state.commands
        monkeypatch.setattr(executor, "_record", lambda state: state.commands.__setitem__(2, []))
        with pytest.raises(DivergenceError, match=r"call 2, aten\.neg.* is nan .*15 of 15"):
            executor.execute([x])
        assert commands[2] == []


def test_memory_that_changes_between_calls_is_found(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would if two tensors that are alive together had one place."""
    x = np.ones((5, 3), np.float32)
    with checked(device, chain().build()) as executor:
        run = CheckedSteps._dispatch

        def careless(self: CheckedSteps, call: OpCall, state: GraphState) -> None:
            run(self, call, state)
            if call.index == 0:
                (given,) = executor.graph.inputs
                upload(device, executor.buffer_of(given), np.full((5, 3), 7, np.float32))

        monkeypatch.setattr(CheckedSteps, "_dispatch", careless)
        with pytest.raises(DivergenceError, match=r"of b \(%0\) is 7.0 where it was written as 1.0") as error:
            executor.execute([x])
    assert error.value.divergence is not None and error.value.divergence.changed


def test_values_that_a_reference_refuses_are_named(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device clamps an index that it alone knows."""

    def refuses(x: np.ndarray) -> np.ndarray:
        raise IndexError("an index is outside")

    wrong(monkeypatch, "aten.neg.default", refuses)
    message = r"call 2, aten\.neg\.default.*refuses these values \(an index is outside\)"
    with checked(device, chain().build()) as executor, pytest.raises(DivergenceError, match=message):
        executor.execute([np.ones((5, 3), np.float32)])


def test_sums_that_cancel_out_are_not_reported(device: Device) -> None:
    """float32 cannot do better, however large the terms are beside their sum."""
    build = GraphBuilder()
    x = build.input((3, 1031))
    build.output(build.call("aten.sum.dim_IntList", x, [-1], False, None, build.tensor((3,))))
    rows = np.random.default_rng(0).uniform(-1e6, 1e6, (3, 1031))
    rows[:, -1] = -rows[:, :-1].sum(axis=1)
    with checked(device, build.build()) as executor:
        executor.execute([rows.astype(np.float32)])


@pytest.mark.slow
def test_calls_of_all_kinds_pass(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """One operator of each module of plan functions."""
    plain = GraphExecutor.__init__
    monkeypatch.setattr(GraphExecutor, "__init__", lambda *args, **more: plain(*args, **more, check=True))
    found = {}
    for sample in SAMPLES:
        operator = registry.find(sample.op)
        assert operator is not None
        found[operator.plan.__module__] = sample
    for sample in found.values():
        with OpProgram(device, sample.op, sample.args, sample.out, **sample.options) as program:
            for live in (False, True):
                program.run(sample.inputs(live))
