{#
Rotates the pairs (2i, 2i+1) of x by the angles of a table [N, C/2], which repeats for every batch entry.
#}
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/rotation.wgsl" %}

@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;      // [B, N, C]
@group(0) @binding(1) var<storage, read> freqs: array<vec2<f32>>;  // (cos, sin)
@group(0) @binding(2) var<storage, read_write> out: array<vec2<f32>>;

struct Params {
  n: u32,      // pairs in x
  table: u32,  // pairs in the table
}
@group(0) @binding(3) var<uniform> params: Params;

override wg_size: u32 = 64;

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i < params.n) {
    let angle = freqs[i % params.table];
    out[i] = rotated_pair(x[i], angle.xx, angle.yy);
  }
}
