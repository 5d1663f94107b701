"""The host reference of whole graphs agrees with the device, keeps state like it, and notices what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu.format import vkgraph as vk
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.reference import ReferenceExecutor, _takes
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.registry import find, names
from tests.graph_builder import GraphBuilder, Ref
from tests.ops.harness import assert_close

TINY = SHAPES["tiny"]
TURNS = (17, 1, 1, 5, 1, 30, 1)  # tokens a step, on one cache: prefill, decode, several at once
Arrays = list[np.ndarray]


@contextmanager
def on_device(device: Device, described: vk.VkGraph) -> Iterator[GraphExecutor]:
    planning = Planning(device.features, device.limits)
    executor = GraphExecutor(build_graph(described), ConstantPool(device, lambda view: None), planning)
    try:
        yield executor
    finally:
        executor.close()


# -- random graphs --------------------------------------------------------------------------------------------------

MOST, WIDTH, VOCAB = 11, 6, 19
BINARY = {"aten.add.Tensor": [0.5], "aten.sub.Tensor": [1], "aten.maximum.default": [], "aten.minimum.default": []}
UNARY = {
    "aten.sigmoid.default": [],
    "aten.gelu.default": ["tanh"],
    "aten.relu.default": [],
    "aten.clone.default": [None],
    "aten._softmax.default": [-1, False],
    "aten.flip.default": [[0, 1]],
}


class RandomGraph:
    """Twelve random calls over [S, WIDTH] tensors, which stay small numbers; the last three results are answered."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.build = GraphBuilder()
        x, tokens = self.build.input((MOST, WIDTH)), self.build.input((MOST,), "int32")
        self.size = self.build.size_of(x, 0)
        table = self._constant(VOCAB, WIDTH)
        self.values = [x, self._call("aten.embedding.default", table, tokens, -1, False, False), self._mask(tokens)]
        kinds = (self._binary, self._unary, self._views, self._product, self._weighted, self._joined)
        for _ in range(12):
            self.values.append(kinds[self.random.integers(len(kinds))]())
        self.build.output(*self.values[-3:])

    def inputs(self, rows: int) -> Arrays:
        x = self.random.uniform(-2, 2, (rows, WIDTH)).astype(np.float32)
        return [x, self.random.integers(0, VOCAB, rows, np.int32)]

    def _call(self, op: str, *args: Any, dims: tuple[int, ...] = (MOST, WIDTH), dtype: str = "float32") -> Ref:
        return self.build.call(op, *args, self.build.tensor(dims, dtype))

    def _constant(self, *dims: int) -> np.ndarray:
        return self.random.uniform(-0.5, 0.5, dims).astype(np.float32)

    def _recent(self) -> Ref:
        return self.values[-self.random.integers(1, min(6, len(self.values) + 1))]

    def _mask(self, tokens: Ref) -> Ref:
        """0 and 1 from integers through bools, for every column."""
        small = self._call("aten.lt.Scalar", tokens, VOCAB // 2, dims=(MOST,), dtype="bool")
        cast = self._call("aten._to_copy.default", small, *[None] * 6, dims=(MOST,))
        column = self._call("aten.unsqueeze_copy.default", cast, 1, dims=(MOST, 1))
        return self._call("aten.expand_copy.default", column, [-1, WIDTH], False)

    def _binary(self) -> Ref:
        op = list(BINARY)[self.random.integers(len(BINARY))]
        return self._call(op, self._recent(), self._recent(), *BINARY[op])

    def _unary(self) -> Ref:
        op = list(UNARY)[self.random.integers(len(UNARY))]
        return self._call(op, self._recent(), *UNARY[op])

    def _views(self) -> Ref:
        cube = self._call("aten.view_copy.default", self._recent(), [self.size, 2, 3], dims=(MOST, 2, 3))
        turned = self._call("aten.permute_copy.default", cube, [0, 2, 1], dims=(MOST, 3, 2))
        return self._call("aten.view_copy.default", turned, [self.size, -1])

    def _product(self) -> Ref:
        return self._call("aten.tanh.default", self._call("aten.mul.Tensor", self._recent(), self._recent()))

    def _weighted(self) -> Ref:
        bias = self._constant(WIDTH) if self.random.integers(2) else None
        return self._call("aten.linear.default", self._recent(), self._constant(WIDTH, WIDTH), bias)

    def _joined(self) -> Ref:
        """The second of two halves, from a live position on."""
        both = self._call("aten.cat.default", [self._recent(), self._recent()], 0, dims=(2 * MOST, WIDTH))
        end = self.build.call("mul", self.size, 2, self.build.symint())
        return self._call("aten.slice_copy.Tensor", both, 0, self.size, end, 1)


@pytest.mark.slow
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), rows=st.lists(st.integers(1, MOST), min_size=2, max_size=4))
def test_random_graphs_agree_with_the_device(device: Device, seed: int, rows: list[int]) -> None:
    random_graph = RandomGraph(seed)
    described = random_graph.build.build()
    reference = ReferenceExecutor(build_graph(described))
    with on_device(device, described) as executor:
        for count in rows:
            inputs = random_graph.inputs(count)
            agree(executor.execute(inputs), reference.execute(inputs))


def agree(got: Sequence[Any], expected: Sequence[Any]) -> None:
    for planner, e in zip(got, expected, strict=True):
        assert_close(planner, e)


# -- a language model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> vk.VkGraph:
    path = tmp_path_factory.mktemp("llama") / "model.pte"
    write_llama(path, TINY)
    file = read_program(path.read_bytes())
    (forward,) = (plan for plan in file.methods if plan.name == "forward")
    return vk.read_vkgraph(file.delegate_data(forward.delegates[0]), file.named_data)


def steps(seed: int = 0) -> list[Arrays]:
    """Random tokens and where they begin."""
    random = np.random.default_rng(seed)
    starts = np.cumsum([0, *TURNS[:-1]])
    return [
        [random.integers(0, TINY.vocab, (1, count), np.int32), np.array([start], np.int32)]
        for count, start in zip(TURNS, starts, strict=True)
    ]


def test_llama_agrees_with_the_device(device: Device, llama: vk.VkGraph) -> None:
    """Prefill, decode and several tokens at once take turns; then again from an empty cache."""
    reference = ReferenceExecutor(build_graph(llama))
    with on_device(device, llama) as executor:
        for seed in (0, 1):
            for inputs in steps(seed):
                agree(executor.execute(inputs), reference.execute(inputs))
            executor.state.reset()
            reference.reset()


def test_state_lasts_until_reset(llama: vk.VkGraph) -> None:
    reference = ReferenceExecutor(build_graph(llama))
    first = [reference.execute(inputs)[0] for inputs in steps()]
    fresh = ReferenceExecutor(build_graph(llama))
    alone = fresh.execute(steps()[-1])[0]
    assert np.abs(alone - first[-1]).max() > 0.01, "the last step must depend on those before it"
    reference.reset()
    again = [reference.execute(inputs)[0] for inputs in steps()]
    np.testing.assert_array_equal(again, first)


def test_the_program_keeps_its_initial_contents(llama: vk.VkGraph) -> None:
    """A second executor of the same graph starts where the first one did."""
    graph = build_graph(llama)
    first = [ReferenceExecutor(graph).execute(steps()[0])[0] for _ in range(2)]
    np.testing.assert_array_equal(*first)


def test_a_pinned_input_pos_diverges(device: Device, llama: vk.VkGraph) -> None:
    """Negative control: with input_pos held at 0 only the first step is right."""
    pinned = ReferenceExecutor(build_graph(llama))
    with on_device(device, llama) as executor:
        for i, (tokens, start) in enumerate(steps()):
            (got,) = executor.execute([tokens, start])
            (wrong,) = pinned.execute([tokens, np.zeros_like(start)])
            if i == 0:
                assert_close(got, wrong)
            else:
                assert np.abs(got - wrong).max() > 0.01, f"step {i} does not depend on input_pos"


def test_state_that_an_output_writes(device: Device) -> None:
    build = GraphBuilder()
    x, total = build.input((4,)), build.constant(np.zeros(4, np.float32))
    build.call("aten.add.Tensor", total, x, 1, total)
    build.output(build.call("aten.mul.Tensor", total, x, build.tensor((4,))))
    graph = build_graph(build.build())
    exact = ReferenceExecutor(graph)
    pool = ConstantPool(device, lambda view: None)
    executor = GraphExecutor(build_graph(build.build()), pool, Planning(device.features, device.limits))
    for step in range(4):
        row = [np.full(4, step + 1, np.float32)]
        np.testing.assert_allclose(executor.execute(row)[0], exact.execute(row)[0], rtol=1e-6)
    executor.close()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_tensors_without_dims_are_noticed_too(dtype: str) -> None:
    build = GraphBuilder()
    x = build.input((), dtype)
    build.output(build.call("aten.mul.Tensor", x, x, build.tensor((), dtype)))
    noticed = []
    exact = ReferenceExecutor(build_graph(build.build()), lambda call, array: noticed.append(array.item()))
    assert exact.execute([np.array(7, dtype)])[0] == 49 and not noticed
    exact.execute([np.array(65500, dtype)])
    assert len(noticed) == (dtype == "int32")


def test_every_reference_says_whether_it_rounds() -> None:
    """Built-in functions, which some references are, have no signature to read."""
    operators = [found for name in names() if (found := find(name)) is not None]
    rounding = {operator.name for operator in operators if _takes(operator.reference, "stored_as")}
    assert {"et_webgpu.elementwise_chain.default", "llama.update_cache.default"} <= rounding
    assert len(rounding) < 20 < len(operators)
