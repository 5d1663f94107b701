{% set halves = rotation == "halves" %}
// What rotate_and_store.wgsl and its int8 form share. Their rows are heads of D elements: those of q for all tokens,
// then those of k{{ ", then those of v" if values }}; q and k are rotated on the way.
@group(0) @binding(0) var<storage, read> q: array<f32>;          // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k: array<f32>;          // [S, Hkv, D]
@group(0) @binding(2) var<storage, read> cos_table: array<f32>;  // [rows, {{ "2 * half" if halves else "half" }}]
@group(0) @binding(3) var<storage, read> sin_table: array<f32>;
@group(0) @binding(4) var<storage, read_write> rotated_q: array<vec4<f32>>;  // like q
{% if values %}
@group(0) @binding(5) var<storage, read> v: array<vec4<f32>>;    // [S, Hkv, D]
{% endif %}
@group(0) @binding(6) var<uniform> params: Params;
@group(0) @binding(7) var<uniform> input_pos: i32;  // the row of the caches that the first token gets
@group(0) @binding(8) var<uniform> start_pos: i32;  // the row of the tables that the first token takes

struct Params {
  rows: u32,
  tokens: u32,
  q_heads: u32,
  kv_heads: u32,
  vectors: u32,  // D / 4
  half: u32,     // pairs in a head
}

{% for x in ("q", "k") %}
// Element e of the head of {{ x }} that begins at ``at``, rotated for a token.
fn rotate_{{ x }}(at: u32, e: u32, token: u32) -> f32 {
  let row = u32(start_pos) + token;
{% if halves %}
  let angle = row * 2u * params.half + e;
  if (e < params.half) {
    return {{ x }}[at + e] * cos_table[angle] - {{ x }}[at + e + params.half] * sin_table[angle];
  }
  if (e < 2u * params.half) {
    return {{ x }}[at + e] * cos_table[angle] + {{ x }}[at + e - params.half] * sin_table[angle];
  }
  return {{ x }}[at + e];
{% else %}
  let angle = row * params.half + e / 2u;
  if (e % 2u == 0u) {
    return {{ x }}[at + e] * cos_table[angle] - {{ x }}[at + e + 1u] * sin_table[angle];
  }
  return {{ x }}[at + e - 1u] * sin_table[angle] + {{ x }}[at + e] * cos_table[angle];
{% endif %}
}
{% endfor %}

// Four elements of a row.
fn elements(row: u32, vector: u32) -> vec4<f32> {
  let q_rows = params.tokens * params.q_heads;
  let e = 4u * vector;
  let width = 4u * params.vectors;
  if (row < q_rows) {
    let at = row * width;
    let token = row / params.q_heads;
    return vec4<f32>({% for i in range(4) %}rotate_q(at, e + {{ i }}u, token){{ ", " if i < 3 }}{% endfor %});
  }
  let kv_row = row - q_rows;
{% if values %}
  let kv_rows = params.tokens * params.kv_heads;
  if (kv_row >= kv_rows) {
    return v[(kv_row - kv_rows) * params.vectors + vector];
  }
{% endif %}
  let at = kv_row * width;
  let token = kv_row / params.kv_heads;
  return vec4<f32>({% for i in range(4) %}rotate_k(at, e + {{ i }}u, token){{ ", " if i < 3 }}{% endfor %});
}
