// out = softmax(scale * Q K^T + mask) V, streamed over the columns: no row of scores is ever stored.
// The rows of a KV head are its query heads packed by token (row = token * group_size + head in the group), so a
// key or value is read once for all heads that use it. One workgroup computes BR rows, in tiles of BC columns.
// Invocation (lane, team) holds {{ rows }} rows x {{ 4 * quads }} columns of the scores, and of the result
// the same rows x {{ 4 * dims }} dims: rows team + TEAMS * i, columns and vec4s of D lane + LANES * i.
// Rows that no row of the workgroup sees are never loaded: they may hold anything, and 0 * NaN is NaN.
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k_cache: array<CacheLoad>;  // {{ cache }}
@group(0) @binding(2) var<storage, read> v_cache: array<CacheLoad>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;  // like q
{% if mask %}
@group(0) @binding(6) var<storage, read> mask: array<f32>;
{% endif %}
{% if cache == "int8" %}
@group(0) @binding(7) var<storage, read> k_scales: array<f32>;  // [column, KV head]
@group(0) @binding(8) var<storage, read> v_scales: array<f32>;
{% endif %}

struct Params {
  rows: u32,           // of one KV head: tokens * group_size
  group_size: u32,     // query heads per KV head
  kv_heads: u32,
  vectors: u32,        // D / 4
  token_stride: u32,   // of q and out, in vec4s
  head_stride: u32,
  column_stride: u32,  // of the keys and values, in vec4s
  kv_head_stride: u32,
  new_columns: u32,    // the context is input_pos + new_columns
  scale: f32,
  {% if mask %}
  heads: u32,          // query heads of one batch
  mask_strides: vec4<u32>,  // batch, head, token, column
  {% endif %}
}
@group(0) @binding(4) var<uniform> params: Params;
@group(0) @binding(5) var<uniform> input_pos: i32;

const LANES = {{ lanes }}u;
const TEAMS = {{ teams }}u;
const BR = {{ teams * rows }}u;
const BC = {{ lanes * 4 * quads }}u;
const WEIGHTS_STRIDE = {{ lanes * quads + 1 }}u;  // odd strides spread rows over the memory banks
const MAXIMA_STRIDE = {{ lanes + 1 }}u;
const LOWEST = -3.4028234e38;

// exp(score - maximum) of [row, u]: component c of vector u is column u % LANES + LANES * (u / LANES * 4 + c).
var<workgroup> weights: array<vec4<f32>, {{ teams * rows * (lanes * quads + 1) }}u>;
var<workgroup> maxima: array<vec4<f32>, {{ teams * rows // 4 * (lanes + 1) }}u>;  // [team, rows / 4, lane]

{% if staged %}
{% include "sdpa/flash_stage.wgsl" %}
{% endif %}
{% include "sdpa/flash_load.wgsl" %}

@compute @workgroup_size({{ lanes * teams }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let lane = index % LANES;
  let team = index / LANES;
  let kv_head = group.y;
  let first_row = (groups.x - 1u - group.x) * BR;  // the longest work starts first
  let last_row = min(first_row + BR, params.rows) - 1u;
  {% if causal %}
  let last = u32(input_pos) + last_row / params.group_size;  // column that the workgroup sees
  {% else %}
  let last = u32(input_pos) + params.new_columns - 1u;
  {% endif %}

  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + team + {{ r }}u * TEAMS, last_row);
  {% if not staged %}
  let q{{ r }} = row_start(row{{ r }}, kv_head);
  {% endif %}
  let last{{ r }} = {{ "u32(input_pos) + row%d / params.group_size" % r if causal else "last" }};
  {% if mask %}
  let head{{ r }} = kv_head * params.group_size + row{{ r }} % params.group_size;
  let mask{{ r }} = head{{ r }} / params.heads * params.mask_strides.x
    + head{{ r }} % params.heads * params.mask_strides.y + row{{ r }} / params.group_size * params.mask_strides.z;
  {% endif %}
  {% for j in range(dims) %}
  var out{{ r }}_{{ j }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  {% for b in range(rows // 4) %}
  var largest{{ b }} = vec4<f32>(LOWEST);  // of rows {{ 4 * b }} to {{ 4 * b + 3 }}
  var total{{ b }} = vec4<f32>();          // of this lane's columns
  {% endfor %}
  {% if staged %}
  {% include "sdpa/flash_stage_rows.wgsl" %}
  {% endif %}

  for (var first = 0u; first <= last; first += BC) {
    {% for r in range(rows) %}
    {% for c in range(quads) %}
    var s{{ r }}_{{ c }} = vec4<f32>();
    {% endfor %}
    {% endfor %}
    {% include "sdpa/flash_scores.wgsl" %}
    {% include "sdpa/flash_softmax.wgsl" %}
    {% include "sdpa/flash_values.wgsl" %}
  }

  {% for b in range(rows // 4) %}
  maxima[(team * {{ rows // 4 }}u + {{ b }}u) * MAXIMA_STRIDE + lane] = total{{ b }};
  {% endfor %}
  workgroupBarrier();
  {% for b in range(rows // 4) %}
  var sum{{ b }} = vec4<f32>();
  for (var i = 0u; i < LANES; i++) {
    sum{{ b }} += maxima[(team * {{ rows // 4 }}u + {{ b }}u) * MAXIMA_STRIDE + i];
  }
  {% endfor %}
  {% for r in range(rows) %}
  if (first_row + team + {{ r }}u * TEAMS <= last_row) {
    let start = row_start(first_row + team + {{ r }}u * TEAMS, kv_head);
    {% for j in range(dims) %}
    if (lane + {{ j }}u * LANES < params.vectors) {
      out[start + lane + {{ j }}u * LANES] = out{{ r }}_{{ j }} / sum{{ r // 4 }}.{{ "xyzw"[r % 4] }};
    }
    {% endfor %}
  }
  {% endfor %}
}
