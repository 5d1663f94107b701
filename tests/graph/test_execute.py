"""Whole graphs on a device: order, sharing, live sizes, state, and what is left after close."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu.errors import ClosedError, InvalidInputError, LimitError, UnsupportedProgramError
from executorch_webgpu.format import vkgraph as vk
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.gpu.buffers import Buffer, upload
from executorch_webgpu.gpu.device import Device, open_null_device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.ops.plan import Planning
from tests.graph_builder import GraphBuilder, Ref

rng = np.random.default_rng(0)


@contextmanager
def loaded(device: Device, build: GraphBuilder, pool: ConstantPool | None = None) -> Iterator[GraphExecutor]:
    pool = pool or ConstantPool(device, lambda view: None)
    executor = GraphExecutor(build_graph(build.build()), pool, Planning(device.features, device.limits))
    try:
        yield executor
    finally:
        executor.close()


def count_calls(monkeypatch: pytest.MonkeyPatch, device: Device, name: str) -> list[object]:
    """What is called from now on, one entry a call."""
    calls: list[object] = []
    method = getattr(device, name)

    def call(*args: object) -> object:
        calls.append(args)
        return method(*args)

    monkeypatch.setattr(device, name, call)
    return calls


def normal(*dims: int) -> np.ndarray:
    return rng.normal(size=dims).astype(np.float32)


@pytest.mark.parametrize("early", [None, 1, 7, 149, 150])
def test_a_long_chain_runs_in_order(device: Device, monkeypatch: pytest.MonkeyPatch, early: int | None) -> None:
    """Also where the device gets its first calls before the others are recorded."""
    if early is not None:
        monkeypatch.setattr("executorch_webgpu.graph.step._LONG", 1)
        monkeypatch.setattr("executorch_webgpu.graph.step._EARLY", early)
    build = GraphBuilder()
    x = build.input((5, 7))
    factor, offset = normal(5, 7), normal(5, 7)
    y = x
    for i in range(150):
        op = "aten.mul.Tensor" if i % 2 else "aten.add.Tensor"
        other = factor if i % 2 else offset
        arguments = (y, other) if i % 2 else (y, other, 1)
        y = build.call(op, *arguments, build.tensor((5, 7)))
    build.output(y)
    factor /= np.abs(factor).max() + 0.1
    with loaded(device, build) as executor:
        given = normal(5, 7)
        expected = given.astype(np.float64)
        for i in range(150):
            expected = expected * factor if i % 2 else expected + offset
        submissions = count_calls(monkeypatch, device, "submit")
        (got,) = executor.execute([given])
        assert len(submissions) == (1 if early in (None, 150) else 2)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), rows=st.lists(st.integers(1, 11), min_size=2, max_size=5))
def test_random_graphs_at_random_live_sizes(device: Device, seed: int, rows: list[int]) -> None:
    """Calls picked at random over [S, 6] tensors; each step another S; poisoned by what the last step left."""
    random = np.random.default_rng(seed)
    build = GraphBuilder()
    inputs = [build.input((11, 6)) for _ in range(2)]
    size = build.size_of(inputs[0], 0)
    values: list[Ref] = [*inputs]
    steps: list[tuple] = []
    for _ in range(12):
        a, b = (int(random.integers(max(0, len(values) - 5), len(values))) for _ in "ab")
        out = build.tensor((11, 6))
        match random.integers(4):
            case 0:
                build.call("aten.add.Tensor", values[a], values[b], 1, out)
                steps.append((lambda x, y: x + y, a, b))
            case 1:
                build.call("aten.mul.Tensor", values[a], values[b], out)
                steps.append((lambda x, y: x * y, a, b))
            case 2:
                build.call("aten.sigmoid.default", values[a], out)
                steps.append((lambda x, _: 1 / (1 + np.exp(-x)), a, b))
            case 3:
                flat = build.call("aten.view_copy.default", values[a], [size, 2, 3], build.tensor((11, 2, 3)))
                build.call("aten.view_copy.default", flat, [size, 6], out)
                steps.append((lambda x, _: x, a, b))
        values.append(out)
    build.output(*values[-3:])
    with loaded(device, build) as executor:
        for s in rows:
            given = [normal(s, 6), normal(s, 6)]
            expected = [g.astype(np.float64) for g in given]
            for function, a, b in steps:
                expected.append(function(expected[a], expected[b]))
            for got, wanted in zip(executor.execute(given), expected[-3:], strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def counter(device_rows: int = 8) -> tuple[GraphBuilder, np.ndarray]:
    """A graph with state: writes a row into a cache at a live position, and answers with the whole cache."""
    build = GraphBuilder()
    start = rng.normal(size=(1, device_rows, 1, 4)).astype(np.float32)
    cache = build.constant(start)
    position = build.live()
    build.call("update_cache.default", build.input((1, 1, 1, 4)), cache, position, build.tensor(start.shape))
    build.output(build.call("aten.clone.default", cache, None, build.tensor(start.shape)))
    return build, start


def test_state_lasts_and_reset_restores_it(device: Device) -> None:
    build, start = counter()
    with loaded(device, build) as executor:
        expected = start.copy()
        for position in (3, 0, 7, 3):
            row = normal(1, 1, 1, 4)
            expected[:, position] = row[:, 0]
            (got,) = executor.execute([np.array([position], np.int32), row])
            np.testing.assert_array_equal(got, expected)
        executor.state.reset()
        row = normal(1, 1, 1, 4)
        (got,) = executor.execute([np.array([1], np.int32), row])
        start[:, 1] = row[:, 0]
        np.testing.assert_array_equal(got, start)


def test_a_refused_step_changes_nothing(device: Device) -> None:
    build, start = counter()
    with loaded(device, build) as executor:
        for position in (-1, 8, 2**31 - 1):
            with pytest.raises(InvalidInputError):
                executor.execute([np.array([position], np.int32), normal(1, 1, 1, 4)])
        row = normal(1, 1, 1, 4)
        (got,) = executor.execute([np.array([0], np.int32), row])
        start[:, 0] = row[:, 0]
        np.testing.assert_array_equal(got, start)


def test_two_loads_share_constants_but_not_state(device: Device) -> None:
    build, start = counter()
    pool = ConstantPool(device, lambda view: None)
    with loaded(device, build, pool) as one, loaded(device, build, pool) as two:
        row = normal(1, 1, 1, 4)
        one.execute([np.array([2], np.int32), row])
        (got,) = two.execute([np.array([5], np.int32), row])
        start[:, 5] = row[:, 0]
        np.testing.assert_array_equal(got, start)


def test_close_frees_everything_and_the_executor_says_so(device: Device) -> None:
    before = device.memory.live_bytes
    build, _ = counter()
    with loaded(device, build) as executor:
        assert device.memory.live_bytes > before
    assert device.memory.live_bytes == before
    executor.close()
    with pytest.raises(ClosedError):
        executor.execute([np.array([0], np.int32), normal(1, 1, 1, 4)])


def test_pipelines_do_not_grow_with_calls_layers_or_steps(device: Device) -> None:
    def layers(count: int) -> GraphBuilder:
        build = GraphBuilder()
        x = build.input((7, 12))
        for _ in range(count):
            x = build.call("et_vk.rms_norm.default", x, np.ones(12, np.float32), 1e-5, build.tensor((7, 12)))
            x = build.call("aten.sigmoid.default", x, build.tensor((7, 12)))
        build.output(x)
        return build

    with loaded(device, layers(1)) as executor:
        executor.execute([normal(7, 12)])
    made = device.kernels.stats()
    with loaded(device, layers(20)) as executor:
        for rows in (7, 1, 5, 1):
            executor.execute([normal(rows, 12)])
    assert device.kernels.stats() == made


def test_memory_stays_flat_over_steps_of_changing_size(device: Device) -> None:
    build, _ = counter()
    with loaded(device, build) as executor:
        executor.execute([np.array([0], np.int32), normal(1, 1, 1, 4)])
        before = (device.memory.live_bytes, device.memory.live_buffers)
        for step in range(200):
            executor.execute([np.array([step % 8], np.int32), normal(1, 1, 1, 4)])
        assert (device.memory.live_bytes, device.memory.live_buffers) == before


def test_a_step_after_a_refused_one_sees_what_that_one_planned(device: Device) -> None:
    """The refused step is planned up to the call that refuses; the next one has the same shape, and the rest fits."""
    build = GraphBuilder()
    x = build.input((8, 4))
    position = build.live()
    y = build.call("aten.sigmoid.default", x, build.tensor((8, 4)))
    cache = build.constant(np.zeros((1, 8, 1, 4), np.float32))
    rows = build.call("aten.view_copy.default", y, [1, build.size_of(x, 0), 1, 4], build.tensor((1, 8, 1, 4)))
    build.call("update_cache.default", rows, cache, position, build.tensor((1,)))
    build.output(y)
    with loaded(device, build) as executor:
        for s, start in ((1, 0), (8, 4), (8, 0), (3, 7), (3, 5)):
            given = normal(s, 4)
            if s + start > 8:
                with pytest.raises(InvalidInputError):
                    executor.execute([given, np.array([start], np.int32)])
                continue
            (got,) = executor.execute([given, np.array([start], np.int32)])
            np.testing.assert_allclose(got, 1 / (1 + np.exp(-given)), rtol=1e-5)


def test_a_refusal_does_not_hide_that_dims_changed(device: Device) -> None:
    """The refusing call has sized its output by then; who reads that output must still learn of it."""
    build = GraphBuilder()
    q, position = build.input((1, 8, 2, 4)), build.live()
    caches = [build.constant(np.zeros((1, 16, 2, 4), np.float32)) for _ in "kv"]
    out = build.tensor((1, 8, 2, 4))
    build.call("sdpa_with_kv_cache.default", q, q, q, *caches, position, 1, None, 0.0, True, None, out)
    build.output(build.call("aten.add.Tensor", out, out, 1, build.tensor((1, 8, 2, 4))))
    exact = ReferenceExecutor(build_graph(build.build()))
    with loaded(device, build) as executor:
        for s, start in ((7, 0), (3, 15), (3, 7), (8, 10), (8, 8), (1, 16), (1, 15)):
            given = [normal(1, s, 2, 4), np.array([start], np.int32)]
            if s + start > 16:
                with pytest.raises(InvalidInputError):
                    executor.execute(given)
                continue
            (got,), (wanted,) = executor.execute(given), exact.execute(given)
            assert np.shape(got) == np.shape(wanted)
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_a_step_after_a_failed_recording(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    build = GraphBuilder()
    x = build.input((8, 4))
    y = build.call("aten.sigmoid.default", x, build.tensor((8, 4)))
    build.output(build.call("aten.add.Tensor", x, y, 1, build.tensor((8, 4))))
    with loaded(device, build) as executor:
        executor.execute([normal(8, 4)])
        with monkeypatch.context() as patch:
            patch.setattr(device.kernels, "pipeline", lambda *_: (_ for _ in ()).throw(LimitError("injected")))
            with pytest.raises(LimitError):
                executor.execute([normal(5, 4)])
        given = normal(5, 4)
        (got,) = executor.execute([given])
        np.testing.assert_allclose(got, given + 1 / (1 + np.exp(-given)), rtol=1e-5, atol=1e-6)


def test_scratch_that_grows_while_a_graph_is_recorded(device: Device) -> None:
    """Attention calls of growing size share one scratch buffer, so earlier ones must be recorded again."""
    build = GraphBuilder()
    wanted = []
    for heads in (1, 2, 8):
        q = build.input((1, 16, heads, 4))
        caches = [build.constant(np.zeros((1, 16, heads, 4), np.float32)) for _ in "kv"]
        out = build.tensor((1, 16, heads, 4))
        build.output(build.call("sdpa_with_kv_cache.default", q, q, q, *caches, 0, 1, None, 0.0, True, None, out))
        wanted.append(heads)
    with loaded(device, build) as executor:
        given = [normal(1, 16, heads, 4) for heads in wanted]
        expected = ReferenceExecutor(build_graph(build.build())).execute(given)
        for got, exact in zip(executor.execute(given), expected, strict=True):
            np.testing.assert_allclose(got, exact, rtol=1e-3, atol=1e-4)


def test_scratch_that_grows_under_one_state_makes_the_others_record_again(device: Device) -> None:
    """The second call is not planned again, so only the growth tells the other state that its commands are stale."""
    build = GraphBuilder()
    for _ in range(2):
        q = build.input((1, 16, 2, 4))
        caches = [build.constant(np.zeros((1, 16, 2, 4), np.float32)) for _ in "kv"]
        out = build.tensor((1, 16, 2, 4))
        build.output(build.call("sdpa_with_kv_cache.default", q, q, q, *caches, 0, 1, None, 0.0, True, None, out))
    exact = build_graph(build.build())
    with loaded(device, build) as executor:
        one, two = executor.new_state(), executor.new_state()
        for first, state in ((16, one), (16, two), (11, one), (11, two), (16, two), (16, one)):
            if first == 11 and state is one:
                _, generation = executor._bound.scratch.get(0, 0)
                assert executor._bound.scratch.get(0, 1 << 20)[1] > generation  # what a larger step would ask for
            given = [normal(1, first, 2, 4), normal(1, 16, 2, 4)]
            expected = ReferenceExecutor(exact).execute(given)
            for got, wanted in zip(executor.execute(given, state), expected, strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_an_expanded_length_may_shrink_to_one(device: Device) -> None:
    build = GraphBuilder()
    x, other = build.input((1, 4)), build.input((8, 2))
    size = build.size_of(other, 0)
    build.output(build.call("aten.expand_copy.default", x, [size, 4], False, build.tensor((8, 4))))
    with loaded(device, build) as executor:
        for rows in (8, 1, 3, 1):
            given = normal(1, 4)
            (got,) = executor.execute([given, normal(rows, 2)])
            np.testing.assert_array_equal(got, np.broadcast_to(given, (rows, 4)))


def test_constants_that_the_device_cannot_hold(device: Device) -> None:
    build = GraphBuilder()
    x = build.input((2,), "int32")
    build.constants.append(np.array([1, 2**40]))
    constant = build._add(vk.VkTensor(vk.DataType.INT64, (2,), constant_id=0))
    build.output(build.call("aten.add.Tensor", x, constant, 1, build.tensor((2,), "int32")))
    with pytest.raises(UnsupportedProgramError, match="32 bits"), loaded(device, build):
        pass


def test_a_plan_that_changes_its_parameters_only_keeps_the_replay(device: Device) -> None:
    build = GraphBuilder()
    x, position = build.input((16, 400)), build.live()
    rows = build.call("aten.slice_copy.Tensor", x, 0, position, None, 1, build.tensor((16, 400)))
    build.output(build.call("aten.select_copy.int", rows, 0, 0, build.tensor((400,))))
    with loaded(device, build) as executor:
        replays = []
        for start in (3, 4, 3, 9):
            given = normal(start + 5, 400)
            (got,) = executor.execute([given, np.array([start], np.int32)])
            np.testing.assert_array_equal(got, given[start])
            replays.append(executor.state.replay)
        assert all(replay is replays[0] for replay in replays)
        executor.execute([normal(16, 400), np.array([0], np.int32)])
        assert executor.state.replay is not replays[0]


def test_inputs_that_only_the_host_reads_are_not_uploaded(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = []

    def record(on: Device, buffer: Buffer, data: np.ndarray) -> None:
        uploaded.append(data.shape)
        upload(on, buffer, data)

    build, start = counter()
    with loaded(device, build) as executor:
        monkeypatch.setattr("executorch_webgpu.graph.step.upload", record)
        for position in (2, 5):
            row = normal(1, 1, 1, 4)
            (got,) = executor.execute([np.array([position], np.int32), row])
            start[:, position] = row[:, 0]
            np.testing.assert_array_equal(got, start)
        assert uploaded == [(1, 1, 1, 4)] * 2


def test_a_whole_llama_on_dawns_null_device(tmp_path: Path) -> None:
    """Nothing runs there, but Dawn checks every bind group, dispatch and barrier of prefill and decode."""
    write_llama(tmp_path / "model.pte", SHAPES["tiny"])
    file = read_program((tmp_path / "model.pte").read_bytes())
    (plan,) = (m for m in file.methods if m.name == "forward")
    source = read_vkgraph(file.delegate_data(plan.delegates[0]), file.named_data)
    with open_null_device() as null:
        pool = ConstantPool(null, lambda view: None)
        executor = GraphExecutor(build_graph(source), pool, Planning(null.features, null.limits))
        for tokens, position in ((13, 0), (1, 13), (4, 14), (1, 18)):
            executor.execute([np.zeros((1, tokens), np.int32), np.array([position], np.int32)])
        executor.close()
