"""Subgroup matrices in plain WGSL, so that kernels for tensor cores run where there are none.

An operand is where it lies in workgroup memory, and each of 32 lanes has eight elements of a sum. What a kernel reads
and writes, and when, is what it does on tensor cores: operands are float16 there, too, and sums float32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from executorch_webgpu.gpu import kernel
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.wgsl import KernelSource, parse

TENSOR_CORES = Features(
    f16=True,
    subgroups=True,
    subgroup_min_size=32,
    subgroup_max_size=32,
    timestamps=True,
    subgroup_matrix=True,
    subgroup_matrix_shapes=(("f16", "f32", 16, 16, 16),),
)
_FUNCTIONS = """
struct Sums {  // row lane / 2, from column lane % 2 * 8 on
  low: vec4<f32>,
  high: vec4<f32>,
}

fn matrix_half(matrix: vec2<u32>, outer: u32, inner: u32) -> f32 {
  return unpack2x16float(MEMORY[matrix.x + outer * matrix.y + inner / 8u][inner % 8u / 2u])[inner % 2u];
}

fn matrix_four(matrix: vec2<u32>, outer: u32, inner: u32) -> vec4<f32> {
  return vec4<f32>(
    matrix_half(matrix, outer, inner), matrix_half(matrix, outer + 1u, inner),
    matrix_half(matrix, outer + 2u, inner), matrix_half(matrix, outer + 3u, inner),
  );
}

// left [16 rows, 16 k], right [16 columns, 16 k].
fn matrix_multiply(left: vec2<u32>, right: vec2<u32>, before: Sums, lane: u32) -> Sums {
  var sums = before;
  let column = lane % 2u * 8u;
  for (var k = 0u; k < 16u; k++) {
    let l = matrix_half(left, lane / 2u, k);
    sums.low += l * matrix_four(right, column, k);
    sums.high += l * matrix_four(right, column + 4u, k);
  }
  return sums;
}

fn matrix_store(at: u32, sums: Sums, stride: u32, lane: u32) {
  MEMORY[at + lane / 2u * stride + lane % 2u * 2u] = bitcast<vec4<u32>>(sums.low);
  MEMORY[at + lane / 2u * stride + lane % 2u * 2u + 1u] = bitcast<vec4<u32>>(sums.high);
}
"""


def emulated(code: str, memory: str) -> str:
    """A rendered kernel whose matrices lie in the workgroup variable ``memory``, an array of vec4<u32>."""
    code = re.sub(r"^(enable|diagnostic).*\n", "", code, flags=re.MULTILINE)
    code = re.sub(r"^alias (Left|Right|Sum) = .*\n", "", code, flags=re.MULTILINE)
    code = re.sub(r"^\s*@builtin\(subgroup_(id|invocation_id)\).*\n", "", code, flags=re.MULTILINE)
    code = re.sub(r"var (\w+) = Sum\(0\.0\);", r"var \1: Sums;", code)
    code = re.sub(r"subgroupMatrixLoad<(?:Left, row_major|Right, col_major)>\(\s*&\w+, ", "vec2<u32>(", code)
    code = re.sub(
        r"(\w+) = subgroupMatrixMultiplyAccumulate\((\w+), (\w+), \1\);",
        r"\1 = matrix_multiply(\2, \3, \1, lane);",
        code,
    )
    code = re.sub(
        r"subgroupMatrixStore<row_major>\(&\w+, (\w+), (\w+), (\w+)\);", r"matrix_store(\1, \2, \3, lane);", code
    )
    code = re.sub(
        r"(fn main\([^{]*\{\n)", r"\1  let subgroup = index / 32u;\n  let lane = index % 32u;\n", code, flags=re.DOTALL
    )
    assert "subgroupM" not in code and "subgroup_matrix" not in code, "the kernel does more than this file knows"
    return code + _FUNCTIONS.replace("MEMORY", memory)


def emulate(monkeypatch: pytest.MonkeyPatch, device: Device, memory: str = "tiles") -> None:
    """Give ``device`` subgroup matrices for as long as the test runs."""
    render = kernel.render

    def rewritten(
        name: str, template: Mapping[str, object], dialect: str, features: Features, *roots: Any
    ) -> KernelSource:
        source = render(name, template, dialect, TENSOR_CORES, *roots)
        return parse(name, emulated(source.code, memory)) if "subgroup_matrix" in source.code else source

    monkeypatch.setattr(kernel, "render", rewritten)
    monkeypatch.setattr(device, "features", replace(TENSOR_CORES, timestamps=device.features.timestamps))
    monkeypatch.setattr(device, "kernels", kernel.Kernels(device))
