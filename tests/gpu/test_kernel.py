"""Rendering, the pipeline cache, bind groups, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.errors import KernelError, LimitError
from executorch_webgpu.gpu.buffers import Buffer, Readback, create, upload
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device, open_device, open_null_device
from executorch_webgpu.gpu.kernel import Kernels, KernelStats, Variant, check_limits, render
from executorch_webgpu.gpu.wgsl import parse

WriteKernel = Callable[[str, str], Kernels]

SCALE = """{#
y = factor * x.

Inputs:
  T = "f32" | "i32": the type of the elements
#}
override wg: u32 = 64u;
override factor: f32 = 2.0;
@group(0) @binding(0) var<storage, read> x: array<{{ T }}>;
@group(0) @binding(1) var<storage, read_write> y: array<{{ T }}>;
@compute @workgroup_size(wg) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&x)) { y[id.x] = x[id.x] * {{ T }}(factor); }
}
"""
ALL = Features(True, True, 32, 32, True, True)
NOTHING = Features.none()


def render_text(tmp_path: Path, text: str, dialect: str = "wgpu", features: Features = ALL, **values: object) -> str:
    inputs = "".join(f"  {name} = {value!r}: any\n" for name, value in values.items())
    head = f"{{#\nA kernel.\n\nInputs:\n{inputs}#}}\n" if values else ""
    (tmp_path / "k.wgsl").write_text(head + text + "@compute @workgroup_size(1) fn main() {}")
    return render("k", values, dialect, features, [tmp_path]).code


def test_scaling_runs(device: Device, write_kernel: WriteKernel) -> None:
    kernels = write_kernel("t/scale", SCALE)
    pipeline = kernels.pipeline("t/scale", {"T": "f32"}, {"wg": 32, "factor": 3.0})
    data = np.arange(101, dtype=np.float32)
    x, y, readback = create(device, data.nbytes, "x"), create(device, data.nbytes, "y"), Readback(device)
    upload(device, x, data)
    group = kernels.bind_group(pipeline, {"x": (x, 0, data.nbytes), "y": (y, 0, data.nbytes)})
    encoder = device.encoder()
    compute_pass = encoder.begin_compute_pass()
    compute_pass.set_pipeline(pipeline.raw)
    compute_pass.set_bind_group(0, group)
    compute_pass.dispatch_workgroups(4)
    compute_pass.end()
    readback.copy(encoder, [(y, 0, data.nbytes)])
    device.submit([encoder.finish()])
    np.testing.assert_array_equal(readback.read()[0].view(np.float32), data * 3)
    for owner in (x, y):
        owner.destroy()
    readback.close()


def test_everything_is_made_once(write_kernel: WriteKernel) -> None:
    kernels = write_kernel("t/scale", SCALE)
    first = kernels.pipeline("t/scale", {"T": "f32"}, {"wg": 32})
    for _ in range(30):
        assert kernels.pipeline("t/scale", {"T": "f32"}, {"wg": 32}) is first
    stats = kernels.stats()
    assert (stats.modules, stats.layouts, stats.pipelines) == (1, 1, 1)
    assert kernels.pipeline("t/scale", {"T": "f32"}, {"wg": 64}) is not first
    assert kernels.pipeline("t/scale", {"T": "i32"}).layout is first.layout
    stats = kernels.stats()
    assert (stats.modules, stats.layouts, stats.pipelines) == (2, 1, 3)


@pytest.fixture(params=["wgpu", "dawn"])
def scales(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kernels]:
    """A fresh cache on each engine, whose one kernel is SCALE."""
    (tmp_path / "scale.wgsl").write_text(SCALE)
    with open_null_device() if request.param == "dawn" else open_device("wgpu") as device:
        yield Kernels(device, [tmp_path])


def scale(wg: int, type_: str = "f32") -> Variant:
    return "scale", {"T": type_}, {"wg": wg}


def test_several_pipelines_at_once(scales: Kernels) -> None:
    wanted = [scale(wg, type_) for wg in (16, 32, 64) for type_ in ("f32", "i32")]
    known = scales.pipeline(*wanted[0])
    with scales.compiling([*wanted, *wanted]):
        pass
    assert scales.stats() == KernelStats(modules=2, layouts=1, pipelines=6)
    assert scales.pipeline(*wanted[0]) is known
    assert len({id(scales.pipeline(*one).raw) for one in wanted}) == 6
    assert scales.stats().pipelines == 6


@pytest.mark.parametrize(
    "refused",
    [scale(0), scale(1 << 20), ("none", {}, {})],
    ids=["by the engine, later", "by us, at once", "does not exist"],
)
def test_one_of_several_pipelines_fails(scales: Kernels, refused: Variant) -> None:
    failure = pytest.raises((KernelError, LimitError), match=f"kernel '{refused[0]}'")
    with failure, scales.compiling([scale(16), refused, scale(32)]):
        pass
    assert scales.stats().pipelines == (2 if refused == scale(0) else 1)  # what had begun was waited for
    scales.pipeline(*scale(32))


def test_an_error_meanwhile_waits_for_the_pipelines(scales: Kernels) -> None:
    with pytest.raises(ZeroDivisionError), scales.compiling([scale(16), scale(0), scale(32)]):
        raise ZeroDivisionError
    assert scales.stats().pipelines == 2


def test_prologue(tmp_path: Path) -> None:
    assert render_text(tmp_path, "").startswith("@compute")
    assert render_text(tmp_path, "// enable f16 in a comment, f16\n").startswith("//")
    for text in ("var<private> a: {{ T }};", "var<private> b: vec4h;", "const c = 1.5h;"):
        assert render_text(tmp_path, text, T="f16").startswith("enable f16;\n")
    subgroups = "fn f() -> f32 { return subgroupAdd(1.0); }"
    assert render_text(tmp_path, subgroups, "wgpu").startswith("fn f")
    assert render_text(tmp_path, subgroups, "dawn").startswith("enable subgroups;\n")
    matrix = render_text(tmp_path, "alias M = subgroup_matrix_left<f16, 16, 16>;", "dawn")
    assert "enable f16;" in matrix and "enable chromium_experimental_subgroup_matrix;" in matrix
    assert render_text(tmp_path, "// {{ dialect }}\n", "dawn").startswith("// dawn")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("const c = {{ missing }};", "missing"),
        ("{% if %}", "does not render"),
        ("{% include 'common/none.wgsl' %}", "no template 'common/none.wgsl'"),
        ("enable f16;\n", "must not write `enable`"),
        ("const c = 1.5h;", "needs f16"),
        ("fn f() { _ = subgroupAdd(1.0); }", "needs subgroups"),
        ("alias M = subgroup_matrix_left<f32, 8, 8>;", "needs subgroup matrices"),
    ],
)
def test_refused_templates(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(KernelError, match=message) as caught:
        render_text(tmp_path, text, features=NOTHING)
    assert "'k'" in str(caught.value)


def test_includes_are_relative_to_the_root(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "square.wgsl").write_text("fn square(x: {{ T }}) -> {{ T }} { return x * x; }\n")
    assert "fn square(x: f32)" in render_text(tmp_path, '{% include "common/square.wgsl" %}', T="f32")


def test_unknown_kernel(device: Device) -> None:
    with pytest.raises(KernelError, match="nowhere/nothing"):
        device.kernels.pipeline("nowhere/nothing")


def test_overrides_by_name(write_kernel: WriteKernel) -> None:
    kernels = write_kernel("t/scale", SCALE.replace("factor: f32 = 2.0", "factor: f32"))
    with pytest.raises(KernelError, match="'t/scale': override factor missing; override fcator not declared"):
        kernels.pipeline("t/scale", {"T": "f32"}, {"fcator": 1.0})
    assert kernels.stats().pipelines == 0


def test_compile_errors_name_the_kernel(write_kernel: WriteKernel) -> None:
    kernels = write_kernel("t/bad", SCALE.replace("* {{ T }}(factor)", "* undefined_name"))
    with pytest.raises(KernelError, match=r"'t/bad'.*undefined_name"):
        kernels.pipeline("t/bad", {"T": "f32"})


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, float("inf"), float("nan")])
def test_a_value_that_its_override_cannot_hold(write_kernel: WriteKernel, value: float) -> None:
    with pytest.raises(KernelError, match="'t/scale': override 'wg' cannot hold"):
        write_kernel("t/scale", SCALE).pipeline("t/scale", {"T": "f32"}, {"wg": value})


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("override w: u32 = 1; @compute @workgroup_size(w) fn main() {}", {"w": 512}, "workgroup size"),
        ("@compute @workgroup_size(64, 8) fn main() {}", {}, "512 invocations"),
        ("var<workgroup> a: array<vec4f, 2048>; @compute @workgroup_size(1) fn main() {}", {}, "32768 bytes"),
        (
            "".join(f"@group(0) @binding({i}) var<storage> b{i}: array<u32>;" for i in range(9))
            + "@compute @workgroup_size(1) fn main() {}",
            {},
            "9 storage buffers",
        ),
    ],
)
def test_kernels_that_are_too_large(text: str, overrides: dict[str, int], message: str) -> None:
    source = parse("family/kernel", text)
    with pytest.raises(LimitError, match=f"family/kernel.*{message}"):
        check_limits(source, overrides, Limits.floor())


def test_pipelines_check_the_devices_limits(device: Device, write_kernel: WriteKernel) -> None:
    with pytest.raises(LimitError, match="workgroup size"):
        write_kernel("t/scale", SCALE).pipeline("t/scale", {"T": "f32"}, {"wg": 1 << 16})


@pytest.fixture
def xy(device: Device) -> Any:
    buffers = create(device, 4096, "the x"), create(device, 4096, "the y")
    yield buffers
    for buffer in buffers:
        buffer.destroy()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z": None}, KernelError, "binding z not declared"),
        ({"y": None}, KernelError, "binding y missing"),
        ({"x": (0, 1 << 40)}, LimitError, "binding 'x'"),
        ({"x": (4096 - 256, 512)}, KernelError, "binding 'x' cannot be bytes 3840 to 4352 of the x"),
        ({"x": (4, 64)}, KernelError, "offsets are multiples"),
        ({"x": (0, 0)}, KernelError, "binding 'x'"),
    ],
)
def test_refused_bindings(
    write_kernel: WriteKernel,
    xy: tuple[Buffer, Buffer],
    change: dict[str, tuple[int, int] | None],
    error: type[Exception],
    message: str,
) -> None:
    kernels = write_kernel("t/scale", SCALE)
    ranges = {"x": (xy[0], 0, 4096), "y": (xy[1], 0, 4096)}
    for name, span in change.items():
        if span is None and name in ranges:
            del ranges[name]
        else:
            ranges[name] = (xy[0], *(span or (0, 4096)))
    with pytest.raises(error, match=message):
        kernels.bind_group(kernels.pipeline("t/scale", {"T": "f32"}), ranges)


def test_a_written_buffer_is_bound_once(write_kernel: WriteKernel, xy: tuple[Buffer, Buffer]) -> None:
    kernels = write_kernel("t/scale", SCALE)
    with pytest.raises(KernelError, match=r"'y' and 'x' are the same buffer \(the x\)"):
        kernels.bind_group(kernels.pipeline("t/scale", {"T": "f32"}), {"x": (xy[0], 0, 1024), "y": (xy[0], 2048, 1024)})


def test_a_destroyed_buffer_is_not_bound(write_kernel: WriteKernel, xy: tuple[Buffer, Buffer]) -> None:
    kernels = write_kernel("t/scale", SCALE)
    xy[0].destroy()
    with pytest.raises(KernelError, match="the x was already destroyed"):
        kernels.bind_group(kernels.pipeline("t/scale", {"T": "f32"}), {"x": (xy[0], 0, 1024), "y": (xy[1], 0, 1024)})


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_compile_check(engine: str, tmp_path: Path) -> None:
    (tmp_path / "scale.wgsl").write_text(SCALE)
    compile_check(engine, "scale", {"T": "f32"}, {"wg": 128}, [tmp_path])
    compile_check(engine, "scale", {"T": "f32"}, {"wg": 1 << 16}, [tmp_path])
    with pytest.raises(KernelError, match=f"'scale' on {engine}"):
        compile_check(engine, "scale", {"T": "undefined_type"}, {}, [tmp_path])
    with pytest.raises(KernelError, match="override w not declared"):
        compile_check(engine, "scale", {"T": "f32"}, {"w": 1}, [tmp_path])


def test_dawn_compiles_subgroup_matrices(tmp_path: Path) -> None:
    (tmp_path / "matrix.wgsl").write_text(
        """
        @group(0) @binding(0) var<storage, read> a: array<f16>;
        @group(0) @binding(1) var<storage, read_write> out: array<f32>;
        @compute @workgroup_size(32) fn main(@builtin(subgroup_size) size: u32) {
          let left = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>>(&a, 0, false, 16);
          let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>>(&a, 256, false, 16);
          let sum = subgroupMatrixMultiply<f32>(left, right);
          subgroupMatrixStore(&out, 0, sum, false, 16);
          out[256] = subgroupAdd(f32(size));
        }
        """
    )
    compile_check("dawn", "matrix", {}, {}, [tmp_path])
    with pytest.raises(KernelError, match="needs (subgroup matrices|f16)"):
        compile_check("wgpu", "matrix", {}, {}, [tmp_path])
