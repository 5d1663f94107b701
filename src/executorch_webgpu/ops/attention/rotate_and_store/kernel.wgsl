{% set values = true %}
// Rotates the queries into ``rotated_q`` and the keys into their cache, and copies the values into theirs.
// One invocation makes four elements; a step's rows are contiguous in source and cache.
{% include "attention/rotate_and_store/rows.wgsl" %}
{% set T = "vec4<f32>" %}
{% set stored = "vec2<u32>" if cache == "float16" else T %}
@group(0) @binding(9) var<storage, read_write> k_cache: array<{{ stored }}>;  // [Cmax, Hkv, D]
@group(0) @binding(10) var<storage, read_write> v_cache: array<{{ stored }}>;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/cache_store.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.rows * params.vectors) {
    return;
  }
  let value = elements(i / params.vectors, i % params.vectors);
  let in_q = params.tokens * params.q_heads * params.vectors;
  let in_k = params.tokens * params.kv_heads * params.vectors;
  let start = u32(input_pos) * params.kv_heads * params.vectors;
  if (i < in_q) {
    rotated_q[i] = value;
  } else if (i < in_q + in_k) {
    k_cache[start + i - in_q] = store(value);
  } else {
    v_cache[start + i - in_q - in_k] = store(value);
  }
}
