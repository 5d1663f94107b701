{#
scores[kv_head, row, column] = scale * dot(q[row], k_cache[column]) for a block of tokens.

An invocation computes ROWS packed rows x COLUMNS columns: a loaded vector of K serves the whole group. Columns that no
row of its tile may see are left undefined; nothing reads them.

Inputs:
  rows = 8 | 1 | 3: packed rows of an invocation
  cache = "float32" | "float16" | "int8": what an element of the cache is
#}
{% set width = 4 %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/packed_rows.wgsl" %}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;             // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k_cache: array<CacheLoad>;       // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read_write> scores: array<vec4<f32>>;  // [Hkv, block_rows, stride]
{% if cache == "int8" %}
@group(0) @binding(5) var<storage, read> k_scales: array<f32>;            // [Cmax, Hkv]
{% endif %}

struct Params {
  block_rows: u32,   // packed rows of one KV head in this block: tokens * group_size
  first_token: u32,  // of the block
  kv_heads: u32,
  group_size: u32,   // Hq / Hkv
  vectors: u32,      // D / 4
  stride: u32,       // vec4s between two rows of scores
  scale: f32,
}
@group(0) @binding(3) var<uniform> params: Params;
@group(0) @binding(4) var<uniform> input_pos: i32;

const ROWS = {{ rows }}u;
const COLUMNS = 8u;

override wg_x: u32 = 8;
override wg_y: u32 = 8;

@compute @workgroup_size(wg_x, wg_y)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
  let row = gid.y * ROWS;
  let column = gid.x * COLUMNS;
  let kv_head = gid.z;
  if (row >= params.block_rows) {
    return;
  }
  let last_row = params.block_rows - 1u;
  let last_column = u32(input_pos) + params.first_token + min(row + ROWS - 1u, last_row) / params.group_size;
  if (column > last_column) {
    return;
  }

  // ---- where the rows of q and the keys begin ----
  let before = params.first_token * params.group_size;  // packed rows of earlier blocks
  {% for r in range(rows) %}
  let head{{ r }} = query_head(before + min(row + {{ r }}u, last_row), kv_head, params.kv_heads, params.group_size);
  let q{{ r }} = head{{ r }} * params.vectors;
  var sum{{ r }}_0 = vec4<f32>();
  var sum{{ r }}_1 = vec4<f32>();
  {% endfor %}
  {% for c in range(8) %}
  let k_head{{ c }} = min(column + {{ c }}u, last_column) * params.kv_heads + kv_head;
  let k{{ c }} = k_head{{ c }} * params.vectors;
  {% endfor %}

  // ---- dot products ----
  for (var i = 0u; i < params.vectors; i++) {
    {% for r in range(rows) %}
    let query{{ r }} = q[q{{ r }} + i];
    {% endfor %}
    {% for c in range(8) %}
    let key{{ c }} = cache_quad0(k_cache[k{{ c }} + i]);
    {% endfor %}
    {% for r in range(rows) %}
    sum{{ r }}_0 += vec4(
      dot(query{{ r }}, key0), dot(query{{ r }}, key1), dot(query{{ r }}, key2), dot(query{{ r }}, key3));
    sum{{ r }}_1 += vec4(
      dot(query{{ r }}, key4), dot(query{{ r }}, key5), dot(query{{ r }}, key6), dot(query{{ r }}, key7));
    {% endfor %}
  }

  // ---- out, times the scale ----
  {% if cache == "int8" %}
  let scale0 = params.scale * vec4(k_scales[k_head0], k_scales[k_head1], k_scales[k_head2], k_scales[k_head3]);
  let scale1 = params.scale * vec4(k_scales[k_head4], k_scales[k_head5], k_scales[k_head6], k_scales[k_head7]);
  {% else %}
  let scale0 = params.scale;
  let scale1 = params.scale;
  {% endif %}
  let base = (kv_head * params.block_rows + row) * params.stride + column / 4u;
  {% for r in range(rows) %}
  if (row + {{ r }}u <= last_row) {
    scores[base + {{ r }}u * params.stride] = sum{{ r }}_0 * scale0;
    scores[base + {{ r }}u * params.stride + 1u] = sum{{ r }}_1 * scale1;
  }
  {% endfor %}
}
