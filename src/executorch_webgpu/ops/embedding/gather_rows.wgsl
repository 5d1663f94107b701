{#
out[r] = table[indices[r]], one unit of a row per invocation.

Inputs:
  unit = "u32" | "vec4<u32>": the WGSL type that rows consist of
#}
@group(0) @binding(0) var<storage, read> table: array<{{ unit }}>;
@group(0) @binding(1) var<storage, read> indices: array<i32>;
@group(0) @binding(2) var<storage, read_write> out: array<{{ unit }}>;
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  n: u32,  // units of out
  row: u32,  // units of a row
  last: i32,  // the last row of the table
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let r = i / params.row;
  let token = u32(clamp(indices[r], 0, params.last));
  out[i] = table[token * params.row + (i - r * params.row)];
}
