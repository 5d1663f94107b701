"""Subgroup matrices in plain WGSL, so that kernels for tensor cores run where there are none.

An operand is where it lies in workgroup memory, and each of 32 lanes has eight elements of a sum. What a kernel reads
and writes, and when, is what it does on tensor cores: operands are float16 there, too, and sums float32. An operand
that is declared as a variable, because it outlives its memory, gets memory of its own.
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
_MEMORY = re.compile(r"^var<workgroup> (\w+): array<array<vec4<([uf]32)>, [^<>]+>, [^<>]+>;", re.MULTILINE)
_ACROSS = 16  # added to an operand's memory: its columns, not its rows, lie one behind the other
_FUNCTIONS = """
// Which memory, which of its inner arrays, where the operand begins there, how far its rows or columns are apart.
alias Operand = vec4<u32>;

struct Sums {  // row lane / 2, from column lane % 2 * 8 on
  low: vec4<f32>,
  high: vec4<f32>,
}

var<workgroup> swapped: array<f32, LANES>;

fn swap(x: f32, index: u32, distance: u32) -> f32 {
  workgroupBarrier();
  swapped[index] = x;
  workgroupBarrier();
  return swapped[index ^ distance];
}

fn matrix_word(m: Operand, at: u32) -> vec4<u32> {
  switch m.x % 16u {
READS
    default: { return vec4<u32>(); }
  }
}

fn matrix_write(m: Operand, at: u32, x: vec4<u32>) {
  switch m.x % 16u {
WRITES
    default: {}
  }
}

fn matrix_half(m: Operand, outer: u32, inner: u32) -> f32 {
  let word = matrix_word(m, m.z + outer * m.w + inner / 8u);
  return unpack2x16float(word[inner % 8u / 2u])[inner % 2u];
}

fn right_half(m: Operand, column: u32, k: u32) -> f32 {
  if (m.x >= ACROSSu) {
    return matrix_half(m, k, column);
  }
  return matrix_half(m, column, k);
}

fn right_four(m: Operand, column: u32, k: u32) -> vec4<f32> {
  return vec4<f32>(
    right_half(m, column, k), right_half(m, column + 1u, k),
    right_half(m, column + 2u, k), right_half(m, column + 3u, k),
  );
}

fn matrix_multiply(left: Operand, right: Operand, before: Sums, lane: u32) -> Sums {
  var sums = before;
  let column = lane % 2u * 8u;
  for (var k = 0u; k < 16u; k++) {
    let l = matrix_half(left, lane / 2u, k);
    sums.low += l * right_four(right, column, k);
    sums.high += l * right_four(right, column + 4u, k);
  }
  return sums;
}

fn matrix_keep(to: Operand, m: Operand, lane: u32) {
  matrix_write(to, lane, matrix_word(m, m.z + lane / 2u * m.w + lane % 2u));
}

fn matrix_store(m: Operand, sums: Sums, lane: u32) {
  let at = m.z + lane / 2u * m.w + lane % 2u * 2u;
  matrix_write(m, at, bitcast<vec4<u32>>(sums.low));
  matrix_write(m, at + 1u, bitcast<vec4<u32>>(sums.high));
}

fn matrix_sums(m: Operand, lane: u32) -> Sums {
  let at = m.z + lane / 2u * m.w + lane % 2u * 2u;
  return Sums(bitcast<vec4<f32>>(matrix_word(m, at)), bitcast<vec4<f32>>(matrix_word(m, at + 1u)));
}
"""
_UNIFORM_LOAD = """
fn uniform_load() -> u32 {
  workgroupBarrier();
  let value = atomicLoad(&grown[0]);
  workgroupBarrier();
  return value;
}
"""


def emulated(source: KernelSource) -> str:
    """A rendered kernel whose matrices lie in workgroup variables that are arrays of arrays of vec4s."""
    code = source.code
    for name, kind in re.findall(r"^alias (\w+) = (vec4<u32>);.*\n", code, flags=re.MULTILINE):
        code = re.sub(rf"(?<!alias )\b{name}\b", kind, code)
    memories = {name: (i, element) for i, (name, element) in enumerate(_MEMORY.findall(code))}
    code = re.sub(r"^(enable|diagnostic).*\n", "", code, flags=re.MULTILINE)
    code = re.sub(r"^alias (Left|Right|Sum) = .*\n", "", code, flags=re.MULTILINE)
    code = _without_f16(code)
    code = re.sub(r"^\s*@builtin\(subgroup_(id|invocation_id)\).*\n", "", code, flags=re.MULTILINE)
    code = re.sub(r"var (\w+) = Sum\(0\.0\);", r"var \1 = Sums();", code)

    def operand(match: re.Match[str]) -> str:
        kind, major, name, block, offset, stride = match.groups()
        memory = memories[name][0] + (_ACROSS if (kind, major) == ("Right", "row_major") else 0)
        place = f"Operand({memory}u, {block}, {offset}, {stride})"
        return f"matrix_sums({place}, lane)" if kind == "Sum" else place

    load = r"subgroupMatrixLoad<(\w+), (\w+)>\(\s*&(\w+)\[([^\]]+)\], ([^,]+), ([^,)]+)\)"
    code = re.sub(load, operand, code)
    code = re.sub(
        r"subgroupMatrixStore<row_major>\(&(\w+)\[(\w+)\], ([^,]+), (\w+), (\w+)\);",
        lambda m: f"matrix_store(Operand({memories[m[1]][0]}u, {m[2]}, {m[3]}, {m[5]}), {m[4]}, lane);",
        code,
    )
    code = re.sub(
        r"(\w+) = subgroupMatrixMultiplyAccumulate\((\w+), (\w+), \1\);",
        r"\1 = matrix_multiply(\2, \3, \1, lane);",
        code,
    )
    code = re.sub(r"subgroupShuffleXor\((\w+), (\w+)\)", r"swap(\1, index, \2)", code)
    if "workgroupUniformLoad" in code:  # naga has none of atomics
        code = re.sub(r"workgroupUniformLoad\(&(\w+)\[0\]\)", "uniform_load()", code) + _UNIFORM_LOAD
    code, kept = _keep_variables(code, len(memories))
    lanes = source.workgroup({})[0]
    code = re.sub(
        r"(fn main\([^{]*\{\n)", r"\1  let subgroup = index / 32u;\n  let lane = index % 32u;\n", code, flags=re.DOTALL
    )
    assert "subgroupM" not in code and "subgroup_matrix" not in code, "the kernel does more than this file knows"
    if kept:
        memories["kept_operands"] = (len(memories), "u32")
        code += f"\nvar<workgroup> kept_operands: array<array<vec4<u32>, 32>, {kept * lanes // 32}>;\n"
    return code + _functions(memories, lanes)


def _without_f16(code: str) -> str:
    """Pairs of float16 numbers are computed in float32, and rounded when they become bits."""
    code = code.replace("bitcast<vec2<f16>>", "unpack2x16float").replace("bitcast<u32>(pair)", "pack2x16float(pair)")
    return re.sub(r"\bf16\b", "f32", code)


def _keep_variables(code: str, memory: int) -> tuple[str, int]:
    """Operands that are variables have memory of their own, ``kept`` of them a subgroup."""
    names = re.findall(r"var (\w+): Left;", code)
    for i, name in enumerate(names):
        place = f"Operand({memory}u, subgroup * {len(names)}u + {i}u, 0u, 2u)"
        code = code.replace(f"var {name}: Left;", f"let {name} = {place};")
        code = re.sub(rf"\b(?<!let ){name} = (Operand\([^;]*\));", rf"matrix_keep({name}, \1, lane);", code)
    return code, len(names)


def _functions(memories: Mapping[str, tuple[int, str]], lanes: int) -> str:
    reads, writes = [], []
    for name, (i, element) in memories.items():
        value, taken = (f"{name}[m.y][at]", "x")
        if element == "f32":
            value, taken = f"bitcast<vec4<u32>>({value})", "bitcast<vec4<f32>>(x)"
        reads.append(f"    case {i}u: {{ return {value}; }}")
        writes.append(f"    case {i}u: {{ {name}[m.y][at] = {taken}; }}")
    text = _FUNCTIONS.replace("READS", "\n".join(reads)).replace("WRITES", "\n".join(writes))
    return text.replace("ACROSS", str(_ACROSS)).replace("LANES", str(lanes))


def emulate(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    """Give ``device`` subgroup matrices for as long as the test runs."""
    render = kernel.render

    def rewritten(
        name: str, template: Mapping[str, object], dialect: str, features: Features, *roots: Any
    ) -> KernelSource:
        source = render(name, template, dialect, TENSOR_CORES, *roots)
        return parse(name, emulated(source)) if "subgroup_matrix" in source.code else source

    monkeypatch.setattr(kernel, "render", rewritten)
    monkeypatch.setattr(device, "features", replace(TENSOR_CORES, timestamps=device.features.timestamps))
    monkeypatch.setattr(device, "kernels", kernel.Kernels(device))
