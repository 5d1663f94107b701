"""The public API on small programs: inputs, outputs, state, methods, errors."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu import (
    ClosedError,
    DeviceError,
    DeviceLostError,
    Error,
    InvalidInputError,
    InvalidProgramError,
    LimitError,
    NoAdapterError,
    Program,
    Runtime,
    UnsupportedProgramError,
)
from executorch_webgpu.format.program_schema import Program as Program_
from executorch_webgpu.format.pte import write_program
from executorch_webgpu.format.vkgraph import write_vkgraph
from executorch_webgpu.gpu.device import open_null_device
from executorch_webgpu.runtime import inspect_program
from tests.graph_builder import GraphBuilder
from tests.programs import delegate_plan, write_delegated

rng = np.random.default_rng(0)


def affine() -> bytes:
    """y = x * w + x for x [1, ≤9, 6]; and the number 7 as a method."""
    build = GraphBuilder()
    x = build.input((1, 9, 6))
    product = build.call("aten.mul.Tensor", x, np.arange(6, dtype=np.float32), build.tensor((1, 9, 6)))
    build.output(build.call("aten.add.Tensor", product, x, 1, build.tensor((1, 9, 6))))
    return write_delegated(build, ["float32", "float32"], dynamic=[0], constants={"seven": 7, "yes": True})


def cached() -> bytes:
    """Writes a row [1, 1, 2, 4] at input_pos into a cache of 8 rows, and answers with the cache."""
    build = GraphBuilder()
    row, position = build.input((1, 1, 2, 4)), build.input((1,), "int32")
    start = build.call("et_vk.select_as_symint.default", position, 0, 0, build.symint())
    cache = build.constant(np.zeros((1, 8, 2, 4), np.float32))
    build.call("update_cache.default", row, cache, start, build.tensor((1, 8, 2, 4)))
    build.output(build.call("aten.clone.default", cache, None, build.tensor((1, 8, 2, 4))))
    return write_delegated(build, ["float32", "int64", "float32"])


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Runtime.get().load_program(affine()) as loaded:
        yield loaded


def expected(x: np.ndarray) -> np.ndarray:
    return x * np.arange(6, dtype=np.float32) + x


def normal(*dims: int) -> np.ndarray:
    return rng.normal(size=dims).astype(np.float32)


def test_methods_and_constants(program: Program) -> None:
    assert program.method_names == {"forward", "seven", "yes"}
    assert program.load_method("seven").execute() == [7]
    assert program.load_method("yes").execute([]) == [True]
    with pytest.raises(InvalidInputError, match="no method 'backward'.*forward"):
        program.load_method("backward")


def test_metadata_names_the_dynamic_dims(program: Program) -> None:
    metadata = program.metadata("forward")
    assert metadata.name == "forward"
    (x,) = metadata.inputs
    assert (x.dtype, x.max_dims, x.dynamic_dims, str(x)) == ("float32", (1, 9, 6), (1,), "float32[1, ≤9, 6]")
    with program.load_method("forward") as method:
        assert method.metadata == metadata


def test_all_live_sizes(program: Program) -> None:
    with program.load_method("forward") as method:
        for rows in (9, 1, 5, 2, 9, 3):
            x = normal(1, rows, 6)
            (y,) = method.execute([x])
            assert y.dtype == np.float32
            np.testing.assert_allclose(y, expected(x), rtol=1e-6)


def test_inputs_may_be_strided_read_only_or_from_other_libraries(program: Program) -> None:
    class Exotic:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return self.array

    x = normal(1, 4, 12)[:, :, ::2]
    frozen = normal(1, 4, 6)
    frozen.flags.writeable = False
    with program.load_method("forward") as method:
        np.testing.assert_allclose(method.execute([x])[0], expected(x), rtol=1e-6)
        np.testing.assert_allclose(method.execute([frozen])[0], expected(frozen), rtol=1e-6)
        np.testing.assert_allclose(method.execute([Exotic(frozen)])[0], expected(frozen), rtol=1e-6)


def test_torch_in_torch_out(program: Program) -> None:
    import torch

    x = torch.randn(1, 5, 6, requires_grad=True)
    with program.load_method("forward") as method:
        (y,) = method.execute([x])
    assert isinstance(y, torch.Tensor)
    torch.testing.assert_close(y, (x * torch.arange(6) + x).detach())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "takes 1 inputs, not 0"),
        ([normal(1, 2, 6)] * 2, "takes 1 inputs, not 2"),
        ([normal(1, 2, 6).astype(np.float64)], "dtype float64.*takes float32"),
        ([np.zeros((1, 2, 6), np.int64)], "dtype int64"),
        ([normal(1, 10, 6)], r"shape \[1, 10, 6\].*at most \[1, 9, 6\]"),
        ([normal(1, 0, 6)], r"shape \[1, 0, 6\]"),
        ([normal(2, 6)], r"shape \[2, 6\]"),
        ([normal(1, 2, 5)], "do not broadcast|dims"),
        ([3], "must be a float32 tensor"),
        ([None], "must be a float32 tensor"),
        ([object()], "is a object"),
    ],
)
def test_inputs_that_do_not_fit(program: Program, inputs: list, message: str) -> None:
    with program.load_method("forward") as method:
        with pytest.raises(InvalidInputError, match=message):
            method.execute(inputs)
        x = normal(1, 3, 6)
        np.testing.assert_allclose(method.execute([x])[0], expected(x), rtol=1e-6)


def test_state_belongs_to_a_loaded_method() -> None:
    with Runtime.get().load_program(cached()) as program:
        one, two = program.load_method("forward"), program.load_method("forward")
        row = normal(1, 1, 2, 4)
        wanted = np.zeros((1, 8, 2, 4), np.float32)
        for position in (2, 7):
            wanted[:, position] = row[:, 0]
            np.testing.assert_array_equal(one.execute([row, np.array([position])])[0], wanted)
        assert (two.execute([row, np.array([0])])[0] != 0).sum() == 8
        one.reset()
        wanted[:] = 0
        wanted[:, 1] = row[:, 0]
        np.testing.assert_array_equal(one.execute([row, np.array([1])])[0], wanted)


@pytest.mark.parametrize("position", [-1, 8, 2**31 - 1, 2**31, -(2**63)])
def test_positions_outside_the_cache(position: int) -> None:
    with Runtime.get().load_program(cached()) as program, program.load_method("forward") as method:
        row = normal(1, 1, 2, 4)
        with pytest.raises(InvalidInputError):
            method.execute([row, np.array([position])])
        (cache,) = method.execute([row, np.array([3])])
        assert (cache != 0).sum() == 8


def test_closing_frees_the_memory_of_the_gpu(own_runtime: Runtime) -> None:
    before = own_runtime.device.memory.live_bytes
    program = own_runtime.load_program(cached())
    method = program.load_method("forward")
    program.load_method("forward").close()
    assert own_runtime.device.memory.live_bytes > before
    program.close()
    program.close()
    assert own_runtime.device.memory.live_bytes == before
    with pytest.raises(ClosedError):
        method.execute([normal(1, 1, 2, 4), np.array([0])])
    with pytest.raises(ClosedError):
        program.load_method("forward")


def test_sources_path_bytes_and_file(tmp_path: Path) -> None:
    path = tmp_path / "program.pte"
    path.write_bytes(affine())
    x = normal(1, 2, 6)
    for source in (
        path,
        str(path),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        io.BytesIO(path.read_bytes()),
    ):
        with Runtime.get().load_program(source) as program, program.load_method("forward") as method:
            np.testing.assert_allclose(method.execute([x])[0], expected(x), rtol=1e-6)


@pytest.mark.parametrize("data", [b"", b"ET12", b"\0" * 100, b"not a program at all, but text"])
def test_bytes_that_are_no_program(data: bytes) -> None:
    with pytest.raises(InvalidProgramError):
        Runtime.get().load_program(data)


def test_a_missing_file() -> None:
    with pytest.raises(InvalidProgramError, match="nowhere.pte"):
        Runtime.get().load_program("nowhere.pte")


def test_unsupported_operators_are_all_named_and_nothing_stays_loaded(own_runtime: Runtime) -> None:
    build = GraphBuilder()
    x = build.input((4,))
    for name in ("aten.first.default", "aten.second.default", "aten.first.default"):
        x = build.call(name, x, build.tensor((4,)))
    build.output(x)
    before = own_runtime.device.memory.live_bytes
    with own_runtime.load_program(write_delegated(build, ["float32", "float32"])) as program:
        with pytest.raises(UnsupportedProgramError) as error:
            program.load_method("forward")
        assert error.value.operators == {"aten.first.default": 2, "aten.second.default": 1}
        (report,) = program.inspect().methods
        assert [(o.name, o.count, o.supported) for o in report.operators] == [
            ("aten.first.default", 2, False),
            ("aten.second.default", 1, False),
        ]
        assert report.planned_bytes is None
    assert own_runtime.device.memory.live_bytes == before


def test_a_tensor_beyond_the_adapters_limit_is_named(own_runtime: Runtime) -> None:
    rows = own_runtime.device.limits.max_binding_bytes // 4096 + 1
    build = GraphBuilder()
    x = build.input((rows, 1024))
    build.output(build.call("aten.sigmoid.default", x, build.tensor((rows, 1024))))
    before = own_runtime.device.memory.live_bytes
    program = own_runtime.load_program(write_delegated(build, ["float32", "float32"]))
    with program, pytest.raises(LimitError, match=rf"\[{rows}, 1024\] has {rows * 4096} bytes.*max-storage-buffer"):
        program.load_method("forward")
    assert own_runtime.device.memory.live_bytes == before


def test_constants_of_two_methods_do_not_collide() -> None:
    """Each delegate numbers its own constants; the bytes lie at the same offset of different blobs."""
    blobs, plans = [], []
    for index, factor in enumerate((2.0, 5.0)):
        build = GraphBuilder()
        x, weight = build.input((4,)), np.full(4, factor, np.float32)
        build.output(build.call("aten.mul.Tensor", x, weight, build.tensor((4,))))
        blobs.append(write_vkgraph(build.build(), [weight.tobytes()]))
        plans.append(delegate_plan(build, ["float32", "float32"], name=f"times{factor:.0f}", segment=index))
    data = write_program(Program_(execution_plan=tuple(plans)), blobs)
    with Runtime.get().load_program(data) as program:
        for name, factor in (("times2", 2), ("times5", 5)):
            (y,) = program.load_method(name).execute([np.ones(4, np.float32)])
            np.testing.assert_array_equal(y, np.full(4, factor))


def test_a_delegate_of_another_backend() -> None:
    build = GraphBuilder()
    build.output(build.call("aten.sigmoid.default", build.input((4,)), build.tensor((4,))))
    data = write_delegated(build, ["float32", "float32"], delegate="XnnpackBackend")
    with Runtime.get().load_program(data) as program:
        with pytest.raises(UnsupportedProgramError, match="XnnpackBackend.*VulkanPartitioner"):
            program.load_method("forward")
        assert program.inspect().methods[0].planned_bytes is None


def test_inspect_says_why_a_method_cannot_be_planned() -> None:
    build = GraphBuilder()
    q = build.input((1, 4, 2, 4))
    caches = [build.constant(np.zeros((1, 8, 2, 4), np.float32)) for _ in "kv"]
    out = build.tensor((1, 4, 2, 4))
    build.output(build.call("sdpa_with_kv_cache.default", q, q, q, *caches, 0, 1, None, 0.5, True, None, out))
    with Runtime.get().load_program(write_delegated(build, ["float32", "float32"])) as program:
        (report,) = program.inspect().methods
        assert report.planned_bytes is None
        assert "dropout 0.5" in str(report.problem)


def test_numbers_and_tensors_without_dimensions() -> None:
    build = GraphBuilder()
    x = build.input(())
    build.output(build.call("aten.add.Tensor", x, x, 1, build.tensor(())))
    with Runtime.get().load_program(write_delegated(build, ["float32", "float32"])) as program:
        method = program.load_method("forward")
        for value in (np.float32(2.5), np.array(2.5, np.float32)):
            (y,) = method.execute([value])
            assert (y.shape, float(y)) == ((), 5.0)


@pytest.mark.parametrize("source", [5, None, io.StringIO("text"), object()])
def test_sources_that_are_none(source: object) -> None:
    with pytest.raises(InvalidInputError, match="path, bytes or a binary file"):
        Runtime.get().load_program(source)  # type: ignore[arg-type]


def test_losing_a_dawn_device_does_not_crash_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executorch_webgpu.runtime.program.open_device", lambda *_: open_null_device())
    runtime = Runtime()
    with runtime.load_program(affine()) as program:
        method = program.load_method("forward")
        runtime.device.raw.destroy()
        with pytest.raises(DeviceLostError):
            method.execute([normal(1, 3, 6)])
        gc.collect()
        program.load_method("forward").execute([normal(1, 3, 6)])
    gc.collect()
    runtime.device.close()


def test_a_lost_device_is_replaced_by_the_next_load() -> None:
    runtime = Runtime()  # one of its own: the shared one must live on
    with runtime.load_program(affine()) as program:
        method = program.load_method("forward")
        lost = runtime.device
        lost.raw.destroy()
        with pytest.raises(DeviceError):
            method.execute([normal(1, 3, 6)])
        x = normal(1, 3, 6)
        (y,) = program.load_method("forward").execute([x])
        np.testing.assert_allclose(y, expected(x), rtol=1e-6)
        assert runtime.device is not lost
    runtime.device.close()


def test_an_adapter_that_is_not_there() -> None:
    runtime = Runtime.get(adapter="no such adapter")
    with runtime.load_program(affine()) as program:
        assert program.load_method("seven").execute() == [7]  # needs no adapter
        with pytest.raises(NoAdapterError):
            program.load_method("forward")


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(Error, match="metal"):
        Runtime.get(engine="metal").load_program(affine()).load_method("forward")


def test_one_runtime_for_one_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Runtime.get() is Runtime.get()
    monkeypatch.setenv("ET_WEBGPU_ADAPTER", "something")
    assert Runtime.get() is Runtime.get(adapter="something")


def test_inspect_needs_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ET_WEBGPU_ADAPTER", "no such adapter")
    path = tmp_path / "program.pte"
    path.write_bytes(cached())
    report = inspect_program(path)
    assert report.file_bytes == path.stat().st_size
    (method,) = report.methods
    assert {o.name for o in method.operators} == {
        "et_vk.select_as_symint.default",
        "update_cache.default",
        "aten.clone.default",
    }
    assert method.mutable_bytes == 8 * 2 * 4 * 4
    assert method.constants_bytes == 8 * 2 * 4 * 4
    assert method.planned_bytes is not None


def test_profile_counts_the_work_of_each_operator() -> None:
    with (
        Runtime.get().load_program(affine()) as program,
        program.load_method("forward", profile=True) as method,
    ):
        for _ in range(3):
            method.execute([normal(1, 4, 6)])
        rows = {row.op: row for row in method.profile()}
    assert set(rows) == {"aten.mul.Tensor", "aten.add.Tensor"}
    assert all(row.calls == row.dispatches == 3 for row in rows.values())
    if Runtime.get().device.features.timestamps:
        assert sum(row.share or 0 for row in rows.values()) == pytest.approx(1)
