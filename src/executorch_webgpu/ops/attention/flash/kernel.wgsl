{#
out = softmax(scale * Q K^T + mask) V, streamed over the columns: no row of scores is ever stored.

One workgroup computes TILE_ROWS packed rows of a KV head (see wgsl/packed_rows), in tiles of TILE_COLUMNS columns, so
that a key or a value is read once for all heads that use it. Invocation (lane, team) holds ROWS rows x 4 * QUADS
columns of the scores, and of the result the same rows x DIMS vec4s of D: rows team + TEAMS * i, columns and vec4s
lane + LANES * i. Columns that no row of the workgroup sees are never loaded: they may hold anything, and 0 * NaN is NaN.

Inputs:
  rows = 4 | 8 | 12: packed rows of an invocation, a multiple of 4
  quads = 1 | 2: vec4s of scores that it holds of each
  lanes = 8 | 16: invocations side by side
  teams = 8 | 4: groups of them
  depth = 8 | 4 | 0: vec4s of D of Q and K that are in workgroup memory at a time; 0 reads them from storage
  stage_values = True | False: whether V comes through workgroup memory, too
  stage_size = 528: vec4s of workgroup memory for Q, K and V
  value_quads = 8 | 4: fours of columns of V that are there at a time
  dims = 2 | 3: vec4s of D that an invocation holds
  ragged = False | True: whether some lanes have one less
  cache = "float32" | "float16" | "int8": what an element of the keys and values is
  causal = True | False: whether a row sees no column past its token
  mask = False | True: whether a mask is added to the scores
  pairs = False | True: whether int8 codes have zero points, beside their scales
  paged = False | True: workgroups have spans of rows, each of one sequence, whose keys and values lie in pages
  batched = False | True: whether the heads of one batch lie elsewhere than those of the next
#}
{% set staged = depth > 0 %}
{% set stage_values = staged and stage_values %}
{% set width = 4 %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/maximum.wgsl" %}
{% if paged %}
{% include "attention/row_spans.wgsl" %}
{% include "wgsl/pages.wgsl" %}
{% endif %}

// Loops end: each counts up to a size, or to the last column that a row sees.

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k_cache: array<CacheLoad>;
@group(0) @binding(2) var<storage, read> v_cache: array<CacheLoad>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;  // like q
{% if mask %}
@group(0) @binding(6) var<storage, read> mask: array<f32>;
{% endif %}
{% if cache == "int8" %}
@group(0) @binding(7) var<storage, read> k_scales: array<{{ "vec2<f32>" if pairs else "f32" }}>;  // [column, KV head]
@group(0) @binding(8) var<storage, read> v_scales: array<{{ "vec2<f32>" if pairs else "f32" }}>;
{% endif %}

struct Params {
  rows: u32,           // packed rows of one KV head: tokens * group_size
  group_size: u32,     // query heads per KV head
  kv_heads: u32,
  vectors: u32,        // D / 4
  token_stride: u32,   // of q and out, in vec4s
  head_stride: u32,
  column_stride: u32,  // of the keys and values, in vec4s
  kv_head_stride: u32,
  new_columns: u32,    // the context is input_pos + new_columns
  scale: f32,
  {% if mask or batched %}
  heads: u32,          // query heads of one batch
  {% endif %}
  {% if mask %}
  mask_strides: vec4<u32>,  // batch, head, token, column
  {% endif %}
  {% if batched %}
  batch_stride: u32,     // of q and out, in vec4s
  kv_batch_stride: u32,  // of the keys and values
  {% endif %}
  {% if paged %}
  table_width: u32,  // pages that a sequence may have
  page_shift: u32,
  {% endif %}
}
@group(0) @binding(4) var<uniform> params: Params;
{% if not paged %}
@group(0) @binding(5) var<uniform> input_pos: i32;
{% endif %}

const ROWS = {{ rows }}u;
const QUADS = {{ quads }}u;
const LANES = {{ lanes }}u;
const TEAMS = {{ teams }}u;
const CAUSAL = {{ causal | lower }};
const TILE_ROWS = TEAMS * ROWS;
const TILE_QUADS = LANES * QUADS;
const TILE_COLUMNS = 4u * TILE_QUADS;
const WEIGHTS_STRIDE = TILE_QUADS + 1u;  // odd strides spread rows over the memory banks
const MAXIMA_STRIDE = LANES + 1u;

// exp(score - maximum) of [row, u]: component c of vector u is column column_of(u, c) of the tile.
var<workgroup> weights: array<vec4<f32>, TILE_ROWS * WEIGHTS_STRIDE>;
var<workgroup> maxima: array<vec4<f32>, TILE_ROWS / 4u * MAXIMA_STRIDE>;  // [team, row / 4, lane]

{% if staged %}
// Chunks of Q and K, [vec4 of D, row], for the scores; later values, [column, vec4 of D].
const DEPTH = {{ depth }}u;
const STAGE_STEP = LANES * TEAMS / DEPTH;
const Q_STRIDE = TILE_ROWS + 1u;
const K_STRIDE = TILE_COLUMNS + 1u;
const K_START = DEPTH * Q_STRIDE;
const FULL_DIMS = {{ dims - ragged }}u;  // vec4s of D that every lane has
const VALUE_QUADS = {{ value_quads }}u;
const VALUE_COLUMNS = 4u * VALUE_QUADS;
const V_STRIDE = LANES * {{ dims }}u;
var<workgroup> stage: array<vec4<f32>, {{ stage_size }}>;

{% endif %}
fn column_of(u: u32, c: u32) -> u32 {
  return u % LANES + LANES * (u / LANES * 4u + c);
}

fn row_start(row: u32, kv_head: u32) -> u32 {
  let head = kv_head * params.group_size + row % params.group_size;
  {% if batched %}
  let start = head / params.heads * params.batch_stride + head % params.heads * params.head_stride;
  {% else %}
  let start = head * params.head_stride;
  {% endif %}
  return row / params.group_size * params.token_stride + start;
}

fn kv_start(kv_head: u32) -> u32 {
  {% if batched %}
  let kv_heads = params.heads / params.group_size;
  return kv_head / kv_heads * params.kv_batch_stride + kv_head % kv_heads * params.kv_head_stride;
  {% else %}
  return kv_head * params.kv_head_stride;
  {% endif %}
}

{% for x in ("k", "v") %}
fn load_{{ x }}(table: u32, column: u32, kv_head: u32, start: u32, d: u32) -> vec4<f32> {
  let cached = {{ "pool_row(table, column, params.page_shift)" if paged else "column" }};
  let at = cached * params.column_stride + start + d;
  {% if pairs and cache == "int8" %}
  let parameters = {{ x }}_scales[cached * params.kv_heads + kv_head];
  return (cache_quad0({{ x }}_cache[at]) - parameters.y) * parameters.x;
  {% elif cache == "int8" %}
  return cache_quad0({{ x }}_cache[at]) * {{ x }}_scales[cached * params.kv_heads + kv_head];
  {% else %}
  return cache_quad0({{ x }}_cache[at]);
  {% endif %}
}

{% endfor %}
{# s<row>_<quad> += query<row> * key<column>, for one vec4 of D #}
{% macro add_products() %}
{% for c in range(quads) %}{% for x in "xyzw" %}
let {{ x }}{{ c }} = vec4(
  key{{ 4 * c }}.{{ x }}, key{{ 4 * c + 1 }}.{{ x }}, key{{ 4 * c + 2 }}.{{ x }}, key{{ 4 * c + 3 }}.{{ x }});
{% endfor %}{% endfor %}
{% for r in range(rows) %}{% for c in range(quads) %}{% for x in "xyzw" %}
s{{ r }}_{{ c }} += query{{ r }}.{{ x }} * {{ x }}{{ c }};
{% endfor %}{% endfor %}{% endfor %}
{% endmacro %}
{# out<row>_<dim> += weights of vector u * value<component>_<dim> #}
{% macro add_values() %}
{% for r in range(rows) %}
let weight{{ r }} = weights[(team + {{ r }}u * TEAMS) * WEIGHTS_STRIDE + u];
{% for j in range(dims) %}{% for x in "xyzw" %}
out{{ r }}_{{ j }} += weight{{ r }}.{{ x }} * value{{ loop.index0 }}_{{ j }};
{% endfor %}{% endfor %}
{% endfor %}
{% endmacro %}
@compute @workgroup_size(LANES * TEAMS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let lane = index % LANES;
  let team = index / LANES;
  let kv_head = group.y;
  let kv_first = kv_start(kv_head);
  {% if paged %}
  let span = row_span(group.x);
  if (span.rows == 0u) {
    return;
  }
  let position = span.position;
  let table = span.sequence * params.table_width;
  let rows_before = span.row * params.group_size;  // of q and out
  let first_row = 0u;
  let last_row = span.rows * params.group_size - 1u;
  {% else %}
  let position = u32(input_pos);
  let table = 0u;
  let rows_before = 0u;
  let first_row = (groups.x - 1u - group.x) * TILE_ROWS;  // the longest work starts first
  let last_row = min(first_row + TILE_ROWS, params.rows) - 1u;
  {% endif %}
  let last = position + select(params.new_columns - 1u, last_row / params.group_size, CAUSAL);  // that it sees
  let my_maxima = team * (ROWS / 4u) * MAXIMA_STRIDE;

  // ---- what an invocation holds ----
  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + team + {{ r }}u * TEAMS, last_row);
  {% if not staged %}
  let q{{ r }} = row_start(rows_before + row{{ r }}, kv_head);
  {% endif %}
  let last{{ r }} = select(last, position + row{{ r }} / params.group_size, CAUSAL);
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
  var largest{{ b }} = vec4<f32>(LOWEST);  // of four rows
  var total{{ b }} = vec4<f32>();          // of this lane's columns
  {% endfor %}
  {% if staged %}
  let stage_d = index % DEPTH;  // it copies every STAGE_STEP-th row, always the same vec4 of a chunk
  let stage_row = index / DEPTH;
  {% for i in range(rows * depth // lanes) %}
  let stage_q{{ i }} = row_start(rows_before + min(first_row + stage_row + {{ i }}u * STAGE_STEP, last_row), kv_head);
  {% endfor %}
  {% endif %}

  for (var first = 0u; first <= last; first += TILE_COLUMNS) {
    // ---- scores: s[row, column] = dot(Q[row], K[column]) ----
    {% for r in range(rows) %}{% for c in range(quads) %}
    var s{{ r }}_{{ c }} = vec4<f32>();
    {% endfor %}{% endfor %}
    {% if staged %}
    for (var chunk = 0u; chunk < params.vectors; chunk += DEPTH) {
      let inside = chunk + stage_d < params.vectors;
      let d = min(chunk + stage_d, params.vectors - 1u);
      {% for i in range(rows * depth // lanes) %}
      stage[stage_d * Q_STRIDE + stage_row + {{ i }}u * STAGE_STEP] =
        select(vec4<f32>(), q[stage_q{{ i }} + d], inside);
      {% endfor %}
      {% for i in range(4 * quads * depth // teams) %}
      stage[K_START + stage_d * K_STRIDE + stage_row + {{ i }}u * STAGE_STEP] =
        select(vec4<f32>(), load_k(table, min(first + stage_row + {{ i }}u * STAGE_STEP, last), kv_head, kv_first, d), inside);
      {% endfor %}
      workgroupBarrier();
      for (var i = 0u; i < DEPTH; i++) {
        {% for j in range(4 * quads) %}
        let key{{ j }} = stage[K_START + i * K_STRIDE + lane + {{ j }}u * LANES];
        {% endfor %}
        {% for r in range(rows) %}
        let query{{ r }} = stage[i * Q_STRIDE + team + {{ r }}u * TEAMS];
        {% endfor %}
        {{ add_products() | indent(8) }}
      }
      workgroupBarrier();
    }
    {% else %}
    {% for j in range(4 * quads) %}
    let column{{ j }} = min(first + lane + {{ j }}u * LANES, last);
    {% endfor %}
    for (var i = 0u; i < params.vectors; i++) {
      {% for j in range(4 * quads) %}
      let key{{ j }} = load_k(table, column{{ j }}, kv_head, kv_first, i);
      {% endfor %}
      {% for r in range(rows) %}
      let query{{ r }} = q[q{{ r }} + i];
      {% endfor %}
      {{ add_products() | indent(6) }}
    }
    {% endif %}

    // ---- the rows' new maxima ----
    {% for c in range(quads) %}
    let columns{{ c }} = first + lane + LANES * vec4({{ 4 * c }}u, {{ 4 * c + 1 }}u, {{ 4 * c + 2 }}u, {{ 4 * c + 3 }}u);
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
    maxima[my_maxima + {{ b }}u * MAXIMA_STRIDE + lane] =
      vec4(top{{ 4 * b }}, top{{ 4 * b + 1 }}, top{{ 4 * b + 2 }}, top{{ 4 * b + 3 }});
    {% endfor %}
    workgroupBarrier();
    {% for b in range(rows // 4) %}
    let before{{ b }} = largest{{ b }};
    for (var i = 0u; i < LANES; i++) {
      largest{{ b }} = max(largest{{ b }}, maxima[my_maxima + {{ b }}u * MAXIMA_STRIDE + i]);
    }
    {% endfor %}

    // ---- weights relative to them; what was summed before is scaled ----
    {% for b in range(rows // 4) %}
    let keep{{ b }} = exp(before{{ b }} - largest{{ b }});
    total{{ b }} *= keep{{ b }};
    {% for x in "xyzw" %}
    {% set r = 4 * b + loop.index0 %}
    {% for j in range(dims) %}
    out{{ r }}_{{ j }} *= keep{{ b }}.{{ x }};
    {% endfor %}
    {% for c in range(quads) %}
    let weight{{ r }}_{{ c }} =
      select(vec4<f32>(), exp(s{{ r }}_{{ c }} - largest{{ b }}.{{ x }}), columns{{ c }} <= vec4(last{{ r }}));
    weights[(team + {{ r }}u * TEAMS) * WEIGHTS_STRIDE + lane + {{ c }}u * LANES] = weight{{ r }}_{{ c }};
    total{{ b }}.{{ x }} += dot(weight{{ r }}_{{ c }}, vec4(1.0));
    {% endfor %}
    {% endfor %}
    {% endfor %}

    // ---- values: out[row] += weights[row, column] * V[column], four columns at a time ----
    {% if stage_values %}
    for (var chunk = 0u; chunk < TILE_QUADS; chunk += VALUE_QUADS) {
      {% for i in range((4 * value_quads + teams - 1) // teams) %}
      {
        let slot = team + {{ i }}u * TEAMS;
        let column = min(first + column_of(chunk + slot / 4u, slot % 4u), last);
        {% for j in range(dims) %}
        if (({{ i + 1 }}u * TEAMS <= VALUE_COLUMNS || slot < VALUE_COLUMNS)
          && ({{ j }}u < FULL_DIMS || lane + {{ j }}u * LANES < params.vectors)) {
          stage[slot * V_STRIDE + lane + {{ j }}u * LANES] = load_v(table, column, kv_head, kv_first, lane + {{ j }}u * LANES);
        }
        {% endfor %}
      }
      {% endfor %}
      workgroupBarrier();
      for (var i = 0u; i < VALUE_QUADS; i++) {
        let u = chunk + i;
        {% for c in range(4) %}{% for j in range(dims) %}
        let value{{ c }}_{{ j }} = stage[(4u * i + {{ c }}u) * V_STRIDE + lane + {{ j }}u * LANES];
        {% endfor %}{% endfor %}
        {{ add_values() | indent(8) }}
      }
      workgroupBarrier();
    }
    {% else %}
    workgroupBarrier();
    for (var u = 0u; u < TILE_QUADS; u++) {
      {% for c in range(4) %}
      let column{{ c }} = min(first + column_of(u, {{ c }}u), last);
      {% for j in range(dims) %}
      let value{{ c }}_{{ j }} = load_v(table, column{{ c }}, kv_head, kv_first, min(lane + {{ j }}u * LANES, params.vectors - 1u));
      {% endfor %}
      {% endfor %}
      {{ add_values() | indent(6) }}
    }
    {% endif %}
  }

  // ---- out, over the totals of all lanes ----
  {% for b in range(rows // 4) %}
  maxima[my_maxima + {{ b }}u * MAXIMA_STRIDE + lane] = total{{ b }};
  {% endfor %}
  workgroupBarrier();
  {% for b in range(rows // 4) %}
  var sum{{ b }} = vec4<f32>();
  for (var i = 0u; i < LANES; i++) {
    sum{{ b }} += maxima[my_maxima + {{ b }}u * MAXIMA_STRIDE + i];
  }
  {% for x in "xyzw" %}
  {% set r = 4 * b + loop.index0 %}
  if (first_row + team + {{ r }}u * TEAMS <= last_row) {
    let start = row_start(rows_before + row{{ r }}, kv_head);
    {% for j in range(dims) %}
    if (lane + {{ j }}u * LANES < params.vectors) {
      out[start + lane + {{ j }}u * LANES] = out{{ r }}_{{ j }} / sum{{ b }}.{{ x }};
    }
    {% endfor %}
  }
  {% endfor %}
  {% endfor %}
}
