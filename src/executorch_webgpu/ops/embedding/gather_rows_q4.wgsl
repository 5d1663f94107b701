{#
out[r] = the dequantized row indices[r] of a 4-bit table, one packed byte (two elements) per invocation.

Inputs:
  low_first = True | False: the even element is in the low bits of a byte
#}
@group(0) @binding(0) var<storage, read> table: array<u32>;  // bytes: two elements, each stored with 8 added
@group(0) @binding(1) var<storage, read> scales: array<f32>;  // [rows, groups]
@group(0) @binding(2) var<storage, read> indices: array<i32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

struct Params {
  n: u32,  // pairs of elements of out
  row: u32,  // bytes of a row
  half_group: u32,  // bytes that share a scale
  last: i32,  // the last row of the table
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

const EVEN = {{ 0 if low_first else 1 }}u;

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let r = i / params.row;
  let column = i - r * params.row;
  let token = u32(clamp(indices[r], 0, params.last));
  let at = token * params.row + column;
  let packed = extractBits(table[at / 4u], at % 4u * 8u, 8u);
  let scale = scales[token * (params.row / params.half_group) + column / params.half_group];
  out[i * 2u + EVEN] = (f32(packed & 15u) - 8.0) * scale;
  out[i * 2u + 1u - EVEN] = (f32(packed >> 4u) - 8.0) * scale;
}
