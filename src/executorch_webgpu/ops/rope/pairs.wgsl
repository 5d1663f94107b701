{#
Rotates the pairs (2i, 2i+1) of every head of xq and xk.

One invocation rotates one pair: first all of xq, then xk.
#}
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/rotation.wgsl" %}

@group(0) @binding(0) var<storage, read> xq: array<vec2<f32>>;   // [B, S, Hq, D]
@group(0) @binding(1) var<storage, read> xk: array<vec2<f32>>;   // [B, S, Hkv, D]
@group(0) @binding(2) var<storage, read> cos_table: array<f32>;  // [>= S, D/2]
@group(0) @binding(3) var<storage, read> sin_table: array<f32>;
@group(0) @binding(4) var<storage, read_write> xq_out: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> xk_out: array<vec2<f32>>;

struct Params {
  n: u32,  // pairs of xq and xk together
  tokens: u32,
  q_heads: u32,
  k_heads: u32,
  half: u32,  // D / 2
}
@group(0) @binding(6) var<uniform> params: Params;

override wg_size: u32 = 64;

fn rotate(x: vec2<f32>, head: u32, heads: u32, pair: u32) -> vec2<f32> {
  let at = head / heads % params.tokens * params.half + pair;
  return rotated_pair(x, vec2<f32>(cos_table[at]), vec2<f32>(sin_table[at]));
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let in_q = params.n / (params.q_heads + params.k_heads) * params.q_heads;
  if (i < in_q) {
    xq_out[i] = rotate(xq[i], i / params.half, params.q_heads, i % params.half);
  } else {
    let j = i - in_q;
    xk_out[j] = rotate(xk[j], j / params.half, params.k_heads, j % params.half);
  }
}
