{#
Tokens of a step: those that are given, and in place of -1 - i the one that row i of the step before drew.
#}
@group(0) @binding(0) var<storage, read> tokens: array<i32>;  // [n]
@group(0) @binding(1) var<storage, read> drawn: array<i32>;  // [rows]: a token, or -1
@group(0) @binding(2) var<storage, read_write> out: array<i32>;  // [n]
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  n: u32,
  rows: u32,
  last: i32,  // token of the vocabulary
}

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  var token = tokens[i];
  if (token < 0) {
    token = clamp(drawn[min(u32(-1 - token), params.rows - 1u)], 0, params.last);
  }
  out[i] = token;
}
