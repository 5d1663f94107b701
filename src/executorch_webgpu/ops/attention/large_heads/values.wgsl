// out[row, d] = sum over columns of probability[row, column] * v_cache[column, d], for a block of tokens.
// One invocation computes {{ rows }} packed rows (see scores.wgsl) x {{ 4 * vectors }} dims.
// It reads no V row past the context: a row there may hold anything, and 0 * NaN is NaN.
{% set width = 4 %}
@group(0) @binding(0) var<storage, read> scores: array<vec4<f32>>;  // [Hkv, block_rows, stride], probabilities
@group(0) @binding(1) var<storage, read> v_cache: array<CacheLoad>;  // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;  // [S, Hq, D]

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
{% if cache == "int8" %}
@group(0) @binding(5) var<storage, read> v_scales: array<f32>;  // [Cmax, Hkv]
{% endif %}

{% include "wgsl/kv_cache.wgsl" %}

override wg_size: u32 = 64;

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
  let kv_head = gid.y;
  let lanes = params.vectors / {{ vectors }}u;
  let lane = gid.x % lanes;
  let row = gid.x / lanes * {{ rows }}u;
  if (row >= params.block_rows) {
    return;
  }
  let last_row = params.block_rows - 1u;
  let last_token = params.first_token + min(row + {{ rows - 1 }}u, last_row) / params.group_size;
  let columns = u32(input_pos) + last_token + 1u;

  {% for r in range(rows) %}
  let row{{ r }} = min(row + {{ r }}u, last_row);
  let p{{ r }} = (kv_head * params.block_rows + row{{ r }}) * params.stride;
  {% for d in range(vectors) %}
  var sum{{ r }}_{{ d }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  let step = params.kv_heads * params.vectors;
  var v = kv_head * params.vectors + lane;
  for (var i = 0u; i < columns / 4u; i++) {
    {% for r in range(rows) %}
    let weights{{ r }} = scores[p{{ r }} + i];
    {% endfor %}
    {% if cache == "int8" %}
    {% for c in range(4) %}
    let scale{{ c }} = v_scales[(4u * i + {{ c }}u) * params.kv_heads + kv_head];
    {% endfor %}
    {% endif %}
    {% for d in range(vectors) %}
    {% for c in range(4) %}
    let value{{ d }}_{{ c }} = cache_quad0(v_cache[v + {{ c }}u * step + {{ d }}u * lanes])
      {%- if cache == "int8" %} * scale{{ c }}{% endif %};
    {% endfor %}
    {% for r in range(rows) %}
    sum{{ r }}_{{ d }} += weights{{ r }}.x * value{{ d }}_0 + weights{{ r }}.y * value{{ d }}_1
      + weights{{ r }}.z * value{{ d }}_2 + weights{{ r }}.w * value{{ d }}_3;
    {% endfor %}
    {% endfor %}
    v += 4u * step;
  }
  for (var c = columns / 4u * 4u; c < columns; c++) {
    {% for d in range(vectors) %}
    let value{{ d }} = cache_quad0(v_cache[v + {{ d }}u * lanes])
      {%- if cache == "int8" %} * v_scales[c * params.kv_heads + kv_head]{% endif %};
    {% endfor %}
    {% for r in range(rows) %}
    let weight{{ r }} = scores[p{{ r }} + c / 4u][c % 4u];
    {% for d in range(vectors) %}
    sum{{ r }}_{{ d }} += weight{{ r }} * value{{ d }};
    {% endfor %}
    {% endfor %}
    v += step;
  }

  let heads = params.kv_heads * params.group_size;
  {% for r in range(rows) %}
  if (row + {{ r }}u <= last_row) {
    let token{{ r }} = params.first_token + row{{ r }} / params.group_size;
    let head{{ r }} = kv_head * params.group_size + row{{ r }} % params.group_size;
    {% for d in range(vectors) %}
    out[(token{{ r }} * heads + head{{ r }}) * params.vectors + lane + {{ d }}u * lanes] = sum{{ r }}_{{ d }};
    {% endfor %}
  }
  {% endfor %}
}
