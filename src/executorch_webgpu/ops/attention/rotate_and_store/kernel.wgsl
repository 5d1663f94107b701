{#
Rotates the queries into a tensor and the keys straight into their cache, and copies the values into theirs.

Rows are heads of D elements: those of q for all tokens, then those of k, then those of v. A step's rows are contiguous
in source and cache. With float caches an invocation makes four elements, with int8 caches a workgroup makes a row.

Inputs:
  rotation = "halves" | "pairs": which elements turn together, those `half` apart or neighbours
  cache = "int8" | "float16" | "float32": what an element of the caches is
  values = True | False: whether the values are copied, too
#}
{% set width = 4 %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/rotation.wgsl" %}
{% if cache == "int8" %}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/workgroup_reduce.wgsl" %}
{% else %}
{% include "wgsl/linear_index.wgsl" %}
override wg_size: u32 = 64;
{% endif %}

@group(0) @binding(0) var<storage, read> q: array<f32>;                      // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k: array<f32>;                      // [S, Hkv, D]
@group(0) @binding(2) var<storage, read> cos_table: array<f32>;              // [rows, half]; with halves twice as wide
@group(0) @binding(3) var<storage, read> sin_table: array<f32>;
@group(0) @binding(4) var<storage, read_write> rotated_q: array<vec4<f32>>;  // like q
@group(0) @binding(9) var<storage, read_write> k_cache: array<CacheFour>;    // [Cmax, Hkv, D]
{% if cache == "int8" %}
@group(0) @binding(10) var<storage, read_write> k_scales: array<f32>;        // [Cmax, Hkv]
{% endif %}
{% if values %}
@group(0) @binding(5) var<storage, read> v: array<vec4<f32>>;                // [S, Hkv, D]
@group(0) @binding(11) var<storage, read_write> v_cache: array<CacheFour>;
{% if cache == "int8" %}
@group(0) @binding(12) var<storage, read_write> v_scales: array<f32>;
{% endif %}
{% endif %}

struct Params {
  rows: u32,
  tokens: u32,
  q_heads: u32,
  kv_heads: u32,
  vectors: u32,  // D / 4
  half: u32,     // pairs in a head
}
@group(0) @binding(6) var<uniform> params: Params;
@group(0) @binding(7) var<uniform> input_pos: i32;  // the row of the caches that the first token gets
@group(0) @binding(8) var<uniform> start_pos: i32;  // the row of the tables that the first token takes

// ---- rotation: vec4 `vector` of a head of q or k ----
{% for x in ("q", "k") %}
{% if rotation == "halves" %}
fn {{ x }}_element(at: u32, e: u32, token: u32) -> f32 {
  let own = {{ x }}[at + e];
  if (e >= 2u * params.half) {
    return own;
  }
  let angle = (u32(start_pos) + token) * 2u * params.half + e;
  let other = {{ x }}[at + partner(e, params.half)] * partner_sign(e, params.half);
  return own * cos_table[angle] + other * sin_table[angle];
}

fn rotate_{{ x }}(head: u32, vector: u32, token: u32) -> vec4<f32> {
  let at = head * 4u * params.vectors;
  let e = 4u * vector;
  return vec4<f32>(
    {{ x }}_element(at, e, token), {{ x }}_element(at, e + 1u, token),
    {{ x }}_element(at, e + 2u, token), {{ x }}_element(at, e + 3u, token),
  );
}

{% else %}
fn {{ x }}_pair(at: u32, angle: u32) -> vec2<f32> {
  let pair = vec2<f32>({{ x }}[at], {{ x }}[at + 1u]);
  return rotated_pair(pair, vec2<f32>(cos_table[angle]), vec2<f32>(sin_table[angle]));
}

fn rotate_{{ x }}(head: u32, vector: u32, token: u32) -> vec4<f32> {
  let at = (head * params.vectors + vector) * 4u;
  let angle = (u32(start_pos) + token) * params.half + 2u * vector;
  return vec4<f32>({{ x }}_pair(at, angle), {{ x }}_pair(at + 2u, angle + 1u));
}

{% endif %}
{% endfor %}
// Four elements of a row.
fn elements(row: u32, vector: u32) -> vec4<f32> {
  let q_rows = params.tokens * params.q_heads;
  if (row < q_rows) {
    return rotate_q(row, vector, row / params.q_heads);
  }
  let kv_row = row - q_rows;
  {% if values %}
  let kv_rows = params.tokens * params.kv_heads;
  if (kv_row >= kv_rows) {
    return v[(kv_row - kv_rows) * params.vectors + vector];
  }
  {% endif %}
  return rotate_k(kv_row, vector, kv_row / params.kv_heads);
}

{% if cache == "int8" %}
// ---- a workgroup a row ----
@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let q_rows = params.tokens * params.q_heads;
  if (row < q_rows) {
    for (var i = lane; i < params.vectors; i += wg_size) {
      rotated_q[row * params.vectors + i] = elements(row, i);
    }
    return;
  }
  var largest = 0.0;
  for (var i = lane; i < params.vectors; i += wg_size) {
    largest = max(largest, largest_of(elements(row, i)));
  }
  let scale = int8_scale(workgroup_max(largest, lane));
  let kv_rows = params.tokens * params.kv_heads;
  let is_key = row < q_rows + kv_rows;
  let target_row = u32(input_pos) * params.kv_heads + row - q_rows - select(kv_rows, 0u, is_key);
  for (var i = lane; i < params.vectors; i += wg_size) {
    let codes = stored(elements(row, i) / int8_divisor(scale));
    if (is_key) {
      k_cache[target_row * params.vectors + i] = codes;
    {% if values %}
    } else {
      v_cache[target_row * params.vectors + i] = codes;
    {% endif %}
    }
  }
  if (lane == 0u) {
    if (is_key) {
      k_scales[target_row] = scale;
    {% if values %}
    } else {
      v_scales[target_row] = scale;
    {% endif %}
    }
  }
}
{% else %}
// ---- an invocation four elements ----
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
    k_cache[start + i - in_q] = stored(value);
  {% if values %}
  } else {
    v_cache[start + i - in_q - in_k] = stored(value);
  {% endif %}
  }
}
{% endif %}
