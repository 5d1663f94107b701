{#
Weights [n, k] as codes of 4 bits with 8 added, by scales that stay: the even one of a byte in the low nibble. An invocation
makes a word of the output, whose bytes may be of several rows.
#}
@group(0) @binding(0) var<storage, read> weights: array<f32>;
@group(0) @binding(1) var<storage, read> scales: array<f32>;  // [k / group_size, scale_stride]
@group(0) @binding(2) var<storage, read_write> out: array<u32>;  // uint8 [n, bytes]

struct Params {
  k: u32,
  bytes: u32,  // of a row
  all_bytes: u32,
  group_size: u32,
  scale_stride: u32,
}
@group(0) @binding(3) var<uniform> params: Params;

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/exact_quotient.wgsl" %}

// The code of a weight; what no scale can hold is 0, and so is what is no number.
fn code(row: u32, column: u32) -> u32 {
  if (column >= params.k) {
    return 0u;
  }
  let scale = scales[column / params.group_size * params.scale_stride + row];
  let weight = weights[row * params.k + column];
  if (scale == 0.0 || (bitcast<u32>(weight) & 0x7fffffffu) > 0x7f800000u) {
    return 8u;
  }
  return u32(i32(clamp(round(exact_quotient(weight, scale)), -8.0, 7.0)) + 8);
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.all_bytes) {
    return;
  }
  var word = 0u;
  for (var j = 0u; j < 4u; j++) {
    let byte = min(i * 4u + j, params.all_bytes - 1u);
    let row = byte / params.bytes;
    let column = (byte - row * params.bytes) * 2u;
    word |= (code(row, column) | (code(row, column + 1u) << 4u)) << (j * 8u);
  }
  out[i] = word;
}
