{#
What the int8 codes of rows stand for, each row with a scale and a zero point of its own. An invocation makes four.
#}
@group(0) @binding(0) var<storage, read> codes: array<u32>;  // four in a word
@group(0) @binding(1) var<storage, read> scales: array<f32>;
@group(0) @binding(2) var<storage, read> zeros: array<u32>;  // int8, four in a word
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> params: Params;

struct Params {
  n: u32,
  vectors: u32,  // fours in a row
}

override wg_size: u32 = 64;
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let row = i / params.vectors;
  let zero = element_int8(zeros[row / 4u], row);
  out[i] = vec4<f32>(unpack_int8(codes[i]) - vec4<i32>(zero)) * scales[row];
}
