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
// Chunks of Q and K, [vec4 of D, row], for the scores; later values, [column, vec4 of D].
const DEPTH = {{ depth }}u;
const STAGE_STEP = {{ lanes * teams // depth }}u;
const Q_STRIDE = BR + 1u;
const K_STRIDE = BC + 1u;
const K_START = DEPTH * Q_STRIDE;
var<workgroup> stage: array<vec4<f32>, {{ stage_size }}u>;
{% endif %}
// Where a packed row lies in q and out, and four consecutive elements of a key or value.
{% set width = 4 %}
{% include "wgsl/kv_cache.wgsl" %}

fn row_start(row: u32, kv_head: u32) -> u32 {
  let head = kv_head * params.group_size + row % params.group_size;
  return row / params.group_size * params.token_stride + head * params.head_stride;
}

{% for name in ("k", "v") %}
fn load_{{ name }}(column: u32, kv_head: u32, d: u32) -> vec4<f32> {
  let at = column * params.column_stride + kv_head * params.kv_head_stride + d;
  {% if cache == "int8" %}
  return cache_quad0({{ name }}_cache[at]) * {{ name }}_scales[column * params.kv_heads + kv_head];
  {% else %}
  return cache_quad0({{ name }}_cache[at]);
  {% endif %}
}

{% endfor %}

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
// Which rows of Q an invocation copies to workgroup memory: every STAGE_STEP-th one, always the same vec4 of a chunk.
let stage_d = index % DEPTH;
let stage_row = index / DEPTH;
{% for i in range(teams * rows * depth // (lanes * teams)) %}
let stage_q{{ i }} = row_start(min(first_row + stage_row + {{ i }}u * STAGE_STEP, last_row), kv_head);
{% endfor %}
  {% endif %}

  for (var first = 0u; first <= last; first += BC) {
    {% for r in range(rows) %}
    {% for c in range(quads) %}
    var s{{ r }}_{{ c }} = vec4<f32>();
    {% endfor %}
    {% endfor %}
// s[row, column] += dot(Q[row], K[column]), from {{ "chunks in workgroup memory" if staged else "storage" }}.
{% macro accumulate() %}
{% for c in range(quads) %}
{% for x in "xyzw" %}
let {{ x }}{{ c }} = vec4(
  key{{ 4 * c }}.{{ x }}, key{{ 4 * c + 1 }}.{{ x }}, key{{ 4 * c + 2 }}.{{ x }}, key{{ 4 * c + 3 }}.{{ x }});
{% endfor %}
{% endfor %}
{% for r in range(rows) %}
{% for c in range(quads) %}
{% for x in "xyzw" %}
s{{ r }}_{{ c }} += query{{ r }}.{{ x }} * {{ x }}{{ c }};
{% endfor %}
{% endfor %}
{% endfor %}
{% endmacro %}
{% if staged %}
for (var chunk = 0u; chunk < params.vectors; chunk += DEPTH) {
  let inside = chunk + stage_d < params.vectors;
  let d = min(chunk + stage_d, params.vectors - 1u);
  {% for i in range(teams * rows * depth // (lanes * teams)) %}
  stage[stage_d * Q_STRIDE + stage_row + {{ i }}u * STAGE_STEP] = select(vec4<f32>(), q[stage_q{{ i }} + d], inside);
  {% endfor %}
  {% for i in range(lanes * 4 * quads * depth // (lanes * teams)) %}
  stage[K_START + stage_d * K_STRIDE + stage_row + {{ i }}u * STAGE_STEP] = select(vec4<f32>(),
    load_k(min(first + stage_row + {{ i }}u * STAGE_STEP, last), kv_head, d), inside);
  {% endfor %}
  workgroupBarrier();
  for (var i = 0u; i < DEPTH; i++) {
    {% for j in range(4 * quads) %}
    let key{{ j }} = stage[K_START + i * K_STRIDE + lane + {{ j }}u * LANES];
    {% endfor %}
    {% for r in range(rows) %}
    let query{{ r }} = stage[i * Q_STRIDE + team + {{ r }}u * TEAMS];
    {% endfor %}
    {{ accumulate() }}
  }
  workgroupBarrier();
}
{% else %}
{% for j in range(4 * quads) %}
let column{{ j }} = min(first + lane + {{ j }}u * LANES, last);
{% endfor %}
for (var i = 0u; i < params.vectors; i++) {
  {% for j in range(4 * quads) %}
  let key{{ j }} = load_k(column{{ j }}, kv_head, i);
  {% endfor %}
  {% for r in range(rows) %}
  let query{{ r }} = q[q{{ r }} + i];
  {% endfor %}
  {{ accumulate() }}
}
{% endif %}
// Turns this tile's scores into weights relative to the rows' new maxima, and scales what was summed before.
{% for c in range(quads) %}
let columns{{ c }} = first + lane + LANES * (vec4({{ 4 * c }}u) + vec4(0u, 1u, 2u, 3u));
{% endfor %}
{% for r in range(rows) %}
{% for c in range(quads) %}
s{{ r }}_{{ c }} *= params.scale;
{% if mask %}
{% for x in "xyzw" %}
s{{ r }}_{{ c }}.{{ x }} += mask[mask{{ r }} + min(columns{{ c }}.{{ x }}, last) * params.mask_strides.w];
{% endfor %}
{% endif %}
s{{ r }}_{{ c }} = select(vec4(LOWEST), s{{ r }}_{{ c }}, columns{{ c }} <= vec4(last{{ r }}));
{% endfor %}
var most{{ r }} = s{{ r }}_0;
{% for c in range(1, quads) %}
most{{ r }} = max(most{{ r }}, s{{ r }}_{{ c }});
{% endfor %}
let top{{ r }} = max(max(most{{ r }}.x, most{{ r }}.y), max(most{{ r }}.z, most{{ r }}.w));
{% endfor %}
{% for b in range(rows // 4) %}
maxima[(team * {{ rows // 4 }}u + {{ b }}u) * MAXIMA_STRIDE + lane] =
  vec4(top{{ 4 * b }}, top{{ 4 * b + 1 }}, top{{ 4 * b + 2 }}, top{{ 4 * b + 3 }});
{% endfor %}
workgroupBarrier();
{% for b in range(rows // 4) %}
let before{{ b }} = largest{{ b }};
for (var i = 0u; i < LANES; i++) {
  largest{{ b }} = max(largest{{ b }}, maxima[(team * {{ rows // 4 }}u + {{ b }}u) * MAXIMA_STRIDE + i]);
}
let keep{{ b }} = exp(before{{ b }} - largest{{ b }});
total{{ b }} *= keep{{ b }};
{% endfor %}
{% for r in range(rows) %}
{% set component = "%d.%s" % (r // 4, "xyzw"[r % 4]) %}
{% for j in range(dims) %}
out{{ r }}_{{ j }} *= keep{{ component }};
{% endfor %}
{% for c in range(quads) %}
let weight{{ r }}_{{ c }} =
  select(vec4<f32>(), exp(s{{ r }}_{{ c }} - largest{{ component }}), columns{{ c }} <= vec4(last{{ r }}));
weights[(team + {{ r }}u * TEAMS) * WEIGHTS_STRIDE + lane + {{ c }}u * LANES] = weight{{ r }}_{{ c }};
total{{ component }} += dot(weight{{ r }}_{{ c }}, vec4(1.0));
{% endfor %}
{% endfor %}
// out[row] += weights[row, column] * V[column], four columns at a time.
{% macro accumulate(u) %}
{% for r in range(rows) %}
let weight{{ r }} = weights[(team + {{ r }}u * TEAMS) * WEIGHTS_STRIDE + {{ u }}];
{% for j in range(dims) %}
{% for x in "xyzw" %}
out{{ r }}_{{ j }} += weight{{ r }}.{{ x }} * value{{ loop.index0 }}_{{ j }};
{% endfor %}
{% endfor %}
{% endfor %}
{% endmacro %}
{% if stage_values %}
for (var chunk = 0u; chunk < {{ lanes * quads }}u; chunk += {{ value_quads }}u) {
  {% for i in range((4 * value_quads + teams - 1) // teams) %}
  {
    let slot = team + {{ i }}u * TEAMS;
    let u = chunk + slot / 4u;
    let column = min(first + u % LANES + LANES * (u / LANES * 4u + slot % 4u), last);
    {% if 4 * value_quads % teams %}
    if (slot < {{ 4 * value_quads }}u) {
    {% endif %}
    {% for j in range(dims) %}
    {% if ragged and j == dims - 1 %}
    if (lane + {{ j }}u * LANES < params.vectors) {
      stage[slot * {{ lanes * dims }}u + lane + {{ j }}u * LANES] = load_v(column, kv_head, lane + {{ j }}u * LANES);
    }
    {% else %}
    stage[slot * {{ lanes * dims }}u + lane + {{ j }}u * LANES] = load_v(column, kv_head, lane + {{ j }}u * LANES);
    {% endif %}
    {% endfor %}
    {% if 4 * value_quads % teams %}
    }
    {% endif %}
  }
  {% endfor %}
  workgroupBarrier();
  for (var i = 0u; i < {{ value_quads }}u; i++) {
    {% for c in range(4) %}
    {% for j in range(dims) %}
    let value{{ c }}_{{ j }} = stage[(4u * i + {{ c }}u) * {{ lanes * dims }}u + lane + {{ j }}u * LANES];
    {% endfor %}
    {% endfor %}
    {{ accumulate("chunk + i") }}
  }
  workgroupBarrier();
}
{% else %}
workgroupBarrier();
for (var u = 0u; u < {{ lanes * quads }}u; u++) {
  {% for c in range(4) %}
  let column{{ c }} = min(first + u % LANES + LANES * (u / LANES * 4u + {{ c }}u), last);
  {% for j in range(dims) %}
  let value{{ c }}_{{ j }} = load_v(column{{ c }}, kv_head, min(lane + {{ j }}u * LANES, params.vectors - 1u));
  {% endfor %}
  {% endfor %}
  {{ accumulate("u") }}
}
{% endif %}
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
