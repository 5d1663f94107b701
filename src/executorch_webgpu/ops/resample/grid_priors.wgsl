{#
Places of the elements of a grid: (index + offset) * stride of column and row. An invocation computes one number.

Inputs:
  out = "f32" | "i32": type of the numbers
#}
@group(0) @binding(0) var<storage, read_write> out: array<{{ out }}>;  // [H * W, 2]
@group(0) @binding(1) var<uniform> params: Params;

struct Params {
  n: u32,
  width: u32,
  stride: i32,
  offset: f32,
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let row = i / 2u / params.width;
  let index = select(row, i / 2u - row * params.width, i % 2u == 0u);
  out[i] = {{ out }}((f32(index) + params.offset) * f32(params.stride));
}
