{#
Rotates element i with element i + half in the first 2 * half elements of every head of xq and xk; copies the rest.

One invocation does one pair or one copied element: first all of xq, then xk.
#}
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/rotation.wgsl" %}

@group(0) @binding(0) var<storage, read> xq: array<f32>;         // [B, S, Hq, D]; by_heads [B, Hq, S, D]
@group(0) @binding(1) var<storage, read> xk: array<f32>;         // [B, S, Hkv, D]; by_heads [B, Hkv, S, D]
@group(0) @binding(2) var<storage, read> cos_table: array<f32>;  // [rows, 2 * half]; by_heads [B or 1, S, 2 * half]
@group(0) @binding(3) var<storage, read> sin_table: array<f32>;
@group(0) @binding(4) var<storage, read_write> xq_out: array<f32>;
@group(0) @binding(5) var<storage, read_write> xk_out: array<f32>;

struct Params {
  n: u32,  // invocations: head_dim - half for every head
  tokens: u32,
  q_heads: u32,
  k_heads: u32,
  half: u32,
  head_dim: u32,
  by_heads: u32,
  table_batch: u32,  // rows of cos_table from one batch to the next
}
@group(0) @binding(6) var<uniform> params: Params;
@group(0) @binding(7) var<uniform> start_pos: i32;

override wg_size: u32 = 64;

fn rotate(first: f32, second: f32, token: u32, i: u32) -> vec2<f32> {
  let at = (u32(start_pos) + token) * 2u * params.half + i;
  let cosines = vec2<f32>(cos_table[at], cos_table[at + params.half]);
  let sines = vec2<f32>(sin_table[at], sin_table[at + params.half]);
  return rotated_pair(vec2<f32>(first, second), cosines, sines);
}

{% for x in ("q", "k") %}
fn rotate_in_x{{ x }}(row: u32, i: u32) {
  let at = row * params.head_dim + i;
  if (i < params.half) {
    let token = select(row / params.{{ x }}_heads, row, params.by_heads != 0u) % params.tokens
      + row / (params.{{ x }}_heads * params.tokens) * params.table_batch;
    let pair = rotate(x{{ x }}[at], x{{ x }}[at + params.half], token, i);
    x{{ x }}_out[at] = pair.x;
    x{{ x }}_out[at + params.half] = pair.y;
  } else {
    x{{ x }}_out[at + params.half] = x{{ x }}[at + params.half];
  }
}

{% endfor %}
@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let index = linear_index(gid, groups, wg_size);
  if (index >= params.n) {
    return;
  }
  let per_head = params.head_dim - params.half;
  let q_rows = params.n / per_head / (params.q_heads + params.k_heads) * params.q_heads;
  let row = index / per_head;  // a head of a token; those of xk follow those of xq
  if (row < q_rows) {
    rotate_in_xq(row, index % per_head);
  } else {
    rotate_in_xk(row - q_rows, index % per_head);
  }
}
