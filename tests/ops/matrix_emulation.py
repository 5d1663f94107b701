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

// A matrix: which variable, which of its inner arrays, where it begins there, how far its rows or columns are apart.
fn matrix_half(matrix: vec4<u32>, outer: u32, inner: u32) -> f32 {
  let at = matrix.z + outer * matrix.w + inner / 8u;
  var word = MEMORY0[matrix.y][at];
  if (matrix.x == 1u) {
    word = MEMORY1[matrix.y][at];
  }
  return unpack2x16float(word[inner % 8u / 2u])[inner % 2u];
}

fn matrix_four(matrix: vec4<u32>, outer: u32, inner: u32) -> vec4<f32> {
  return vec4<f32>(
    matrix_half(matrix, outer, inner), matrix_half(matrix, outer + 1u, inner),
    matrix_half(matrix, outer + 2u, inner), matrix_half(matrix, outer + 3u, inner),
  );
}

// left [16 rows, 16 k], right [16 columns, 16 k].
fn matrix_multiply(left: vec4<u32>, right: vec4<u32>, before: Sums, lane: u32) -> Sums {
  var sums = before;
  let column = lane % 2u * 8u;
  for (var k = 0u; k < 16u; k++) {
    let l = matrix_half(left, lane / 2u, k);
    sums.low += l * matrix_four(right, column, k);
    sums.high += l * matrix_four(right, column + 4u, k);
  }
  return sums;
}

fn matrix_store(matrix: vec4<u32>, sums: Sums, lane: u32) {
  let at = matrix.z + lane / 2u * matrix.w + lane % 2u * 2u;
  if (matrix.x == 0u) {
    MEMORY0[matrix.y][at] = bitcast<vec4<u32>>(sums.low);
    MEMORY0[matrix.y][at + 1u] = bitcast<vec4<u32>>(sums.high);
  } else {
    MEMORY1[matrix.y][at] = bitcast<vec4<u32>>(sums.low);
    MEMORY1[matrix.y][at + 1u] = bitcast<vec4<u32>>(sums.high);
  }
}
"""


def emulated(code: str, memory: tuple[str, str]) -> str:
    """A rendered kernel whose matrices lie in two workgroup variables ``memory``, arrays of arrays of vec4<u32>."""
    code = re.sub(r"^(enable|diagnostic).*\n", "", code, flags=re.MULTILINE)
    code = re.sub(r"^alias (Left|Right|Sum) = .*\n", "", code, flags=re.MULTILINE)
    code = re.sub(r"^\s*@builtin\(subgroup_(id|invocation_id)\).*\n", "", code, flags=re.MULTILINE)
    code = re.sub(r"var (\w+) = Sum\(0\.0\);", r"var \1: Sums;", code)
    for i, name in enumerate(memory):
        code = re.sub(
            rf"subgroupMatrixLoad<(?:Left, row_major|Right, col_major)>\(\s*&{name}\[([^\]]+)\], ",
            rf"vec4<u32>({i}u, \1, ",
            code,
        )
        code = re.sub(
            rf"subgroupMatrixStore<row_major>\(&{name}\[(\w+)\], (\w+), (\w+), (\w+)\);",
            rf"matrix_store(vec4<u32>({i}u, \1, \2, \4), \3, lane);",
            code,
        )
    code = re.sub(
        r"(\w+) = subgroupMatrixMultiplyAccumulate\((\w+), (\w+), \1\);",
        r"\1 = matrix_multiply(\2, \3, \1, lane);",
        code,
    )
    code = re.sub(
        r"(fn main\([^{]*\{\n)", r"\1  let subgroup = index / 32u;\n  let lane = index % 32u;\n", code, flags=re.DOTALL
    )
    assert "subgroupM" not in code and "subgroup_matrix" not in code, "the kernel does more than this file knows"
    return code + _FUNCTIONS.replace("MEMORY0", memory[0]).replace("MEMORY1", memory[1])


def emulate(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    """Give ``device`` subgroup matrices for as long as the test runs."""
    render = kernel.render

    def rewritten(
        name: str, template: Mapping[str, object], dialect: str, features: Features, *roots: Any
    ) -> KernelSource:
        source = render(name, template, dialect, TENSOR_CORES, *roots)
        return (
            parse(name, emulated(source.code, ("x_tiles", "w_tiles"))) if "subgroup_matrix" in source.code else source
        )

    monkeypatch.setattr(kernel, "render", rewritten)
    monkeypatch.setattr(device, "features", replace(TENSOR_CORES, timestamps=device.features.timestamps))
    monkeypatch.setattr(device, "kernels", kernel.Kernels(device))
