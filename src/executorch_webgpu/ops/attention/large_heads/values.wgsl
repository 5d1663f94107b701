{#
out[row, d] = sum over columns of probability[row, column] * v_cache[column, d], for a block of tokens.

An invocation computes ROWS packed rows x VECTORS vec4s of D. It reads no row of V past the context: a row there may
hold anything, and 0 * NaN is NaN.

Inputs:
  rows = 8: packed rows of an invocation
  vectors = 2 | 1: vec4s of D of an invocation
  cache = "float32" | "float16" | "int8": what an element of the cache is
#}
{% set width = 4 %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/packed_rows.wgsl" %}

@group(0) @binding(0) var<storage, read> scores: array<vec4<f32>>;     // [Hkv, block_rows, stride], probabilities
@group(0) @binding(1) var<storage, read> v_cache: array<CacheLoad>;    // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;  // [S, Hq, D]
{% if cache == "int8" %}
@group(0) @binding(5) var<storage, read> v_scales: array<f32>;         // [Cmax, Hkv]
{% endif %}

struct Params {
  block_rows: u32,
  first_token: u32,
  kv_heads: u32,
  group_size: u32,
  vectors: u32,  // D / 4
  stride: u32,   // vec4s between two rows of scores
}
@group(0) @binding(3) var<uniform> params: Params;
@group(0) @binding(4) var<uniform> input_pos: i32;

const ROWS = {{ rows }}u;
const VECTORS = {{ vectors }}u;

override wg_size: u32 = 64;

fn value(column: u32, kv_head: u32, vector: u32) -> vec4<f32> {
  let head = column * params.kv_heads + kv_head;
  {% if cache == "int8" %}
  return cache_quad0(v_cache[head * params.vectors + vector]) * v_scales[head];
  {% else %}
  return cache_quad0(v_cache[head * params.vectors + vector]);
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
  let kv_head = gid.y;
  let lanes = params.vectors / VECTORS;  // vec4s of an invocation lie that far apart
  let lane = gid.x % lanes;
  let row = gid.x / lanes * ROWS;
  if (row >= params.block_rows) {
    return;
  }
  let last_row = params.block_rows - 1u;
  let last_token = params.first_token + min(row + ROWS - 1u, last_row) / params.group_size;
  let columns = u32(input_pos) + last_token + 1u;
  {% for r in range(rows) %}
  let row{{ r }} = min(row + {{ r }}u, last_row);
  let p{{ r }} = (kv_head * params.block_rows + row{{ r }}) * params.stride;
  {% for d in range(vectors) %}
  var sum{{ r }}_{{ d }} = vec4<f32>();
  {% endfor %}
  {% endfor %}

  // ---- four columns at a time ----
  for (var i = 0u; i < columns / 4u; i++) {
    {% for r in range(rows) %}
    let weights{{ r }} = scores[p{{ r }} + i];
    {% endfor %}
    {% for d in range(vectors) %}
    {% for c in range(4) %}
    let value{{ d }}_{{ c }} = value(4u * i + {{ c }}u, kv_head, lane + {{ d }}u * lanes);
    {% endfor %}
    {% for r in range(rows) %}
    sum{{ r }}_{{ d }} += weights{{ r }}.x * value{{ d }}_0 + weights{{ r }}.y * value{{ d }}_1
      + weights{{ r }}.z * value{{ d }}_2 + weights{{ r }}.w * value{{ d }}_3;
    {% endfor %}
    {% endfor %}
  }

  // ---- the last ones ----
  for (var c = columns / 4u * 4u; c < columns; c++) {
    {% for d in range(vectors) %}
    let value{{ d }} = value(c, kv_head, lane + {{ d }}u * lanes);
    {% endfor %}
    {% for r in range(rows) %}
    let weight{{ r }} = scores[p{{ r }} + c / 4u][c % 4u];
    {% for d in range(vectors) %}
    sum{{ r }}_{{ d }} += weight{{ r }} * value{{ d }};
    {% endfor %}
    {% endfor %}
  }

  // ---- out ----
  let before = params.first_token * params.group_size;  // packed rows of earlier blocks
  {% for r in range(rows) %}
  if (row + {{ r }}u <= last_row) {
    let head = query_head(before + row{{ r }}, kv_head, params.kv_heads, params.group_size);
    {% for d in range(vectors) %}
    out[head * params.vectors + lane + {{ d }}u * lanes] = sum{{ r }}_{{ d }};
    {% endfor %}
  }
  {% endfor %}
}
