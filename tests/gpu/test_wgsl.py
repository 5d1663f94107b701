"""What is read from a kernel's text, and how params are packed."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.buffers import Readback, UniformArena, create
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import Kernels
from executorch_webgpu.gpu.wgsl import Binding, ParamField, parse, strip_comments

KERNEL = """
// @group(0) @binding(7) var<uniform> not_this: u32;
const TILE = 16u;
const ROWS: u32 = TILE * 2;
/* outer /* override no: u32; */ still a comment */
struct Params {
  count: u32,   // 0
  origin: vec3<f32>,
  stride: i32, scale: f32, dims: vec2u,
  shape: array<vec4<i32>, 2>,
  extra: array<vec4u, ROWS / 16>,
  last: vec3i
}
@id(3) override wg_x: u32 = 8u;
override wg_y: u32;
override eps: f32 = 1e-5;
@group(0) @binding(0) var<storage, read> weights: array<vec4<f32>>;
@binding(2) @group(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1)
var<uniform> params: Params;
@group(0) @binding(4) var<uniform> input_pos: vec4<i32>;
@group(0) @binding(5) var<storage> defaulted: array<u32>;
var<workgroup> tile: array<array<f32, TILE>, ROWS>;
var<workgroup> row: array<vec4<f32>, wg_x * wg_y>;
var<workgroup> count: atomic<u32>;
@compute @workgroup_size(wg_x, wg_y)
fn main() { const TILE = 3; }
"""


def test_declaration() -> None:
    source = parse("family/kernel", KERNEL)
    assert source.bindings == (
        Binding(0, "weights", "read", "array<vec4<f32>>"),
        Binding(1, "params", "uniform", "Params"),
        Binding(2, "out", "read_write", "array<f32>"),
        Binding(4, "input_pos", "uniform", "vec4<i32>"),
        Binding(5, "defaulted", "read", "array<u32>"),
    )
    assert source.params == (
        ParamField("count", "u32", 0, "u32", 1),
        ParamField("origin", "vec3<f32>", 16, "f32", 3),
        ParamField("stride", "i32", 28, "i32", 1),
        ParamField("scale", "f32", 32, "f32", 1),
        ParamField("dims", "vec2<u32>", 40, "u32", 2),
        ParamField("shape", "array<vec4<i32>,2>", 48, "i32", 8),
        ParamField("extra", "array<vec4<u32>,2>", 80, "u32", 8),
        ParamField("last", "vec3<i32>", 112, "i32", 3),
    )
    assert source.params_size == 128
    assert {n: (o.type, o.default, o.id) for n, o in source.overrides.items()} == {
        "wg_x": ("u32", "8u", "3"),
        "wg_y": ("u32", None, None),
        "eps": ("f32", "1e-5", None),
    }
    assert source.workgroup({"wg_y": 4}) == (8, 4, 1)
    assert source.workgroup({"wg_x": 2, "wg_y": 4}) == (2, 4, 1)
    assert source.workgroup_bytes({"wg_y": 4}) == 16 * 32 * 4 + 8 * 4 * 16 + 16
    assert source.resolve_overrides({"wg_x": 2, "wg_y": 4}) == {"3": 2.0, "wg_y": 4.0}


def test_workgroup_memory_of_structs_is_unknown() -> None:
    text = "struct S { a: f32 } var<workgroup> s: array<S, 4>; @compute @workgroup_size(1) fn main() {}"
    assert parse("k", text).workgroup_bytes({}) is None


def test_comments() -> None:
    assert strip_comments("a/* b /* c */ d */e // f\ng /") == "a e \ng /"
    assert strip_comments("a*/b/* //* c */ // */ d") == "a*/b  d"
    assert strip_comments("a/* never ended") == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fn main() {}", "entry point"),
        ("@compute @workgroup_size(1) fn other() {}", "`main`"),
        (
            "@group(1) @binding(0) var<uniform> p: u32; @compute @workgroup_size(1) fn main() {}",
            r"@group\(0\)",
        ),
        ("@group(0) @binding(0) var t: texture_2d<f32>; @compute @workgroup_size(1) fn main() {}", "plain"),
        ("override n = 4u; @compute @workgroup_size(1) fn main() {}", "'n' must state its type"),
        ("struct Params { a: u32 } @compute @workgroup_size(1) fn main() {}", "go together"),
        (
            "@group(0) @binding(0) var<uniform> params: P; @compute @workgroup_size(1) fn main() {}",
            "together",
        ),
        ("struct Params { a: f16 } @compute @workgroup_size(1) fn main() {}", "`a: f16`"),
        ("struct Params { a: array<f32, 4> } @compute @workgroup_size(1) fn main() {}", "array<vec4<T>, N>"),
        ("struct Params { @align(32) a: f32 } @compute @workgroup_size(1) fn main() {}", "align"),
        (
            "@group(0) @binding(0) var<uniform> a: u32; @group(0) @binding(0) var<uniform> b: u32;"
            "@compute @workgroup_size(1) fn main() {}",
            "used twice",
        ),
    ],
)
def test_refused_declarations(text: str, message: str) -> None:
    with pytest.raises(KernelError, match=message):
        parse("family/kernel", text)


VALUES: dict[str, Any] = {
    "count": 7,
    "origin": (1.0, 2.0, 3.0),
    "stride": -2,
    "scale": math.nan,
    "dims": np.array([5, 6], np.int64),
    "shape": [[1, 2, 3, 4], [5, 6, 7, -8]],
    "extra": range(8),
    "last": [1, 1, 1],
}


def test_pack() -> None:
    packed = parse("family/kernel", KERNEL).pack_params(VALUES)
    assert len(packed) == 128
    assert struct.unpack_from("<3fi", packed, 16) == (1.0, 2.0, 3.0, -2)
    assert math.isnan(struct.unpack_from("<f", packed, 32)[0])
    assert struct.unpack_from("<8i", packed, 48) == (1, 2, 3, 4, 5, 6, 7, -8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": -1}, "'count' cannot hold -1 as u32"),
        ({"count": 2**32}, "'count' cannot hold 4294967296"),
        ({"count": 1.5}, "'count' cannot hold 1.5"),
        ({"stride": 2**31}, "'stride'"),
        ({"scale": 1e300}, "'scale'"),
        ({"scale": "x"}, "'scale'"),
        ({"dims": [1, 2, 3]}, "'dims' is vec2<u32> and needs 2 numbers, not 3"),
        ({"shape": [1, 2]}, "needs 8 numbers"),
        ({"typo": 1}, "parameter typo not declared"),
    ],
)
def test_refused_params(change: dict[str, Any], message: str) -> None:
    with pytest.raises(KernelError, match=message) as caught:
        parse("family/kernel", KERNEL).pack_params(VALUES | change)
    assert "family/kernel" in str(caught.value)


def test_missing_param() -> None:
    values = {name: value for name, value in VALUES.items() if name not in ("count", "last")}
    with pytest.raises(KernelError, match="parameter count, last missing"):
        parse("family/kernel", KERNEL).pack_params(values)


SCALARS = {
    "u32": st.integers(0, 2**32 - 1),
    "i32": st.integers(-(2**31), 2**31 - 1),
    "f32": st.floats(width=32, allow_nan=False, allow_subnormal=False),
}


@st.composite
def members(draw: st.DrawFn) -> list[tuple[str, int, int, list[int | float]]]:
    """(scalar, components, array length or 0, values) for each member of a struct."""
    made = []
    for _ in range(draw(st.integers(1, 8))):
        scalar = draw(st.sampled_from(sorted(SCALARS)))
        components, length = draw(st.sampled_from([(1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 3)]))
        count = components * max(length, 1)
        made.append((scalar, components, length, draw(st.lists(SCALARS[scalar], min_size=count, max_size=count))))
    return made


def echo_kernel(struct_members: list[tuple[str, int, int, list[int | float]]]) -> str:
    """A kernel that writes the bits of every number in Params, in order."""
    fields, writes, at = [], [], 0
    for i, (scalar, components, length, _) in enumerate(struct_members):
        type_ = scalar if components == 1 else f"vec{components}<{scalar}>"
        fields.append(f"m{i}: array<{type_}, {length}>," if length else f"m{i}: {type_},")
        for row in range(max(length, 1)):
            value = f"params.m{i}[{row}]" if length else f"params.m{i}"
            for component in "xyzw"[:components]:
                one = value if components == 1 else f"{value}.{component}"
                writes.append(f"  out[{at}] = bitcast<u32>({one});")
                at += 1
    return "\n".join(
        [
            "struct Params {",
            *fields,
            "}",
            "@group(0) @binding(0) var<uniform> params: Params;",
            "@group(0) @binding(1) var<storage, read_write> out: array<u32>;",
            "@compute @workgroup_size(1) fn main() {",
            *writes,
            "}",
        ]
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members())
def test_a_kernel_reads_what_was_packed(
    device: Device,
    write_kernel: Callable[[str, str], Kernels],
    struct_members: list[tuple[str, int, int, list[int | float]]],
) -> None:
    code = echo_kernel(struct_members)
    name = f"echo/k{abs(hash(code))}"
    kernels = write_kernel(name, code)
    pipeline = kernels.pipeline(name)
    numbers = [np.array(values, f"{scalar[0]}4") for scalar, _, _, values in struct_members]
    expected = np.concatenate([n.view(np.uint32) for n in numbers])
    arena, readback = UniformArena(device), Readback(device)
    out = create(device, expected.nbytes, "out")
    slot = arena.allocate(pipeline.source.params_size)
    packed = {f"m{i}": values[0] if c == 1 else values for i, (_, c, _, values) in enumerate(struct_members)}
    arena.write(slot, pipeline.source.pack_params(packed))
    arena.flush()
    ranges = {"params": (slot.buffer, slot.offset, slot.size), "out": (out, 0, expected.nbytes)}
    encoder = device.encoder()
    compute_pass = encoder.begin_compute_pass()
    compute_pass.set_pipeline(pipeline.raw)
    compute_pass.set_bind_group(0, kernels.bind_group(pipeline, ranges))
    compute_pass.dispatch_workgroups(1)
    compute_pass.end()
    readback.copy(encoder, [(out, 0, expected.nbytes)])
    device.submit([encoder.finish()])
    np.testing.assert_array_equal(readback.read()[0].view(np.uint32), expected)
    for owner in (arena, readback):
        owner.close()
    out.destroy()
