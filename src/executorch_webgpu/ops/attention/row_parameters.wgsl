{#
Scale and zero point of every row and head of a cache of codes beside each other: out[row, head].
#}
@group(0) @binding(0) var<storage, read> scales: array<f32>;
@group(0) @binding(1) var<storage, read> zeros: array<u32>;  // int8, four in a word
@group(0) @binding(2) var<storage, read_write> out: array<vec2<f32>>;
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  n: u32,
  heads: u32,
  row_step: u32,  // of scales and zeros, in elements
  head_step: u32,
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
  let at = i / params.heads * params.row_step + i % params.heads * params.head_step;
  out[i] = vec2<f32>(scales[at], f32(element_int8(zeros[at / 4u], at)));
}
