// Rotates the pairs (2i, 2i+1) of x, read as complex numbers, by the complex numbers of a table [N, C/2].
@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;      // [B, N, C]
@group(0) @binding(1) var<storage, read> freqs: array<vec2<f32>>;  // (cos, sin)
@group(0) @binding(2) var<storage, read_write> out: array<vec2<f32>>;

struct Params {
  n: u32,      // pairs in x
  table: u32,  // pairs in the table, which repeats for every batch entry
}
@group(0) @binding(3) var<uniform> params: Params;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let value = x[i];
  let turn = freqs[i % params.table];
  out[i] = vec2(value.x * turn.x - value.y * turn.y, value.x * turn.y + value.y * turn.x);
}
