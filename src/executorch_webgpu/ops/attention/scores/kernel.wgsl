{% set quads = 2 %}
// scores[kv_head, row, column] = scale * dot(q[row], k_cache[column]) for a block of tokens.
// The rows of a KV head are its query heads packed by token: row = (token - first_token) * group_size + head.
// One invocation computes {{ rows }} rows x {{ 4 * quads }} columns: a loaded K vector serves the whole group.
// Columns that no row of the tile may see are left undefined; nobody reads them.
{% set width = 4 %}
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;  // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k_cache: array<CacheLoad>;  // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read_write> scores: array<vec4<f32>>;  // [Hkv, block_rows, stride]

struct Params {
  block_rows: u32,   // rows of one KV head in this block: tokens * group
  first_token: u32,  // of the block
  kv_heads: u32,
  group_size: u32,   // Hq / Hkv
  vectors: u32,      // D / 4
  stride: u32,       // vec4s between two rows of scores
  scale: f32,
}
@group(0) @binding(3) var<uniform> params: Params;
@group(0) @binding(4) var<uniform> input_pos: i32;
{% if cache == "int8" %}
@group(0) @binding(5) var<storage, read> k_scales: array<f32>;  // [Cmax, Hkv]
{% endif %}

{% include "wgsl/kv_cache.wgsl" %}

override wg_x: u32 = 8;
override wg_y: u32 = 8;

@compute @workgroup_size(wg_x, wg_y)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
  let row = gid.y * {{ rows }}u;
  let kv_head = gid.z;
  if (row >= params.block_rows) {
    return;
  }
  let last_row = params.block_rows - 1u;
  let last_token = params.first_token + min(row + {{ rows - 1 }}u, last_row) / params.group_size;
  let last_column = u32(input_pos) + last_token;
  let column = gid.x * {{ 4 * quads }}u;
  if (column > last_column) {
    return;
  }

  let heads = params.kv_heads * params.group_size;
  {% for r in range(rows) %}
  let row{{ r }} = min(row + {{ r }}u, last_row);
  let q{{ r }} = ((params.first_token + row{{ r }} / params.group_size) * heads
    + kv_head * params.group_size + row{{ r }} % params.group_size) * params.vectors;
  {% for c in range(quads) %}
  var sum{{ r }}_{{ c }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  {% for c in range(4 * quads) %}
  let head{{ c }} = min(column + {{ c }}u, last_column) * params.kv_heads + kv_head;
  let k{{ c }} = head{{ c }} * params.vectors;
  {% endfor %}
  for (var i = 0u; i < params.vectors; i++) {
    {% for r in range(rows) %}
    let query{{ r }} = q[q{{ r }} + i];
    {% endfor %}
    {% for c in range(quads) %}
    {% for j in range(4) %}
    let key{{ 4 * c + j }} = cache_quad0(k_cache[k{{ 4 * c + j }} + i]);
    {% endfor %}
    {% for r in range(rows) %}
    sum{{ r }}_{{ c }} += vec4(
      dot(query{{ r }}, key{{ 4 * c }}), dot(query{{ r }}, key{{ 4 * c + 1 }}),
      dot(query{{ r }}, key{{ 4 * c + 2 }}), dot(query{{ r }}, key{{ 4 * c + 3 }}));
    {% endfor %}
    {% endfor %}
  }

  {% for c in range(quads) %}
  {% if cache == "int8" %}
  let scale{{ c }} = params.scale * vec4<f32>(
    k_scales[head{{ 4 * c }}], k_scales[head{{ 4 * c + 1 }}],
    k_scales[head{{ 4 * c + 2 }}], k_scales[head{{ 4 * c + 3 }}]);
  {% else %}
  let scale{{ c }} = params.scale;
  {% endif %}
  {% endfor %}
  let base = (kv_head * params.block_rows + row) * params.stride + gid.x * {{ quads }}u;
  {% for r in range(rows) %}
  if (row + {{ r }}u <= last_row) {
    {% for c in range(quads) %}
    scores[base + {{ r }}u * params.stride + {{ c }}u] = sum{{ r }}_{{ c }} * scale{{ c }};
    {% endfor %}
  }
  {% endfor %}
}
