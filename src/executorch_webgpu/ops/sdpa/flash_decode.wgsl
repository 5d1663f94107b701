// Attention of up to {{ rows }} packed rows over one chunk of the context. K and V are read once for all of them.
// The rows of a KV head are its query heads packed by token: row = token * group_size + head.
//
// For keys and values an invocation is a loader: `lanes` of them hold a row of the cache, {{ loads }} load(s) of
// {{ width }} elements each, and `parts` cache rows are read at a time. Queries and sums stay in registers.
// For scores it is a scorer: `wg_size / rows` of them share the columns of one packed row.
// A chunk that is the whole context writes `out`; otherwise flash_reduce.wgsl puts the chunks together.
{% set quads = width // 4 %}
{% set elements = width * loads %}
{% macro declare_rows(x, unroll) %}
{% for i in range(unroll) %}
{% for l in range(loads) %}
var {{ x }}{{ i }}_{{ l }}: CacheLoad;
{% endfor %}
{% if cache == "int8" %}
var {{ x }}_scale{{ i }}: f32;
{% endif %}
{% endfor %}
{% endmacro %}
{% macro load_rows(x, unroll, tile) %}
{% for i in range(unroll) %}
let {{ x }}_row{{ i }} = min({{ tile }} + {{ i }}u * parts + part, count - 1u);
{% for l in range(loads) %}
{{ x }}{{ i }}_{{ l }} = {{ x }}_cache[base + {{ x }}_row{{ i }} * step + {{ l }}u * lanes];
{% endfor %}
{% if cache == "int8" %}
{{ x }}_scale{{ i }} = {{ x }}_scales[(first + {{ x }}_row{{ i }}) * params.kv_heads + kv_head];
{% endif %}
{% endfor %}
{% endmacro %}
{% import "sdpa/query_bytes.wgsl" as query_bytes %}
{% include "sdpa/cache_load.wgsl" %}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;         // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k_cache: array<CacheLoad>;   // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read> v_cache: array<CacheLoad>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;       // [S, Hq, D]
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;      // [Hkv, rows, splits, D], not normalized
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;  // [Hkv, rows, splits]: maximum, total

struct Params {
  rows: u32,        // packed rows of a KV head, S * group_size
  row_blocks: u32,  // rows / {{ rows }}, rounded up
  group_size: u32,  // Hq / Hkv
  kv_heads: u32,
  chunk: u32,       // columns of a split, at most max_chunk
  splits: u32,      // that were planned; those behind the context have nothing to do
  scale: f32,
}
@group(0) @binding(6) var<uniform> params: Params;
@group(0) @binding(7) var<uniform> input_pos: i32;
{% if cache == "int8" %}
@group(0) @binding(8) var<storage, read> k_scales: array<f32>;  // [Cmax, Hkv]
@group(0) @binding(9) var<storage, read> v_scales: array<f32>;
{% endif %}

override wg_size: u32 = 256;
override lanes: u32 = 16;           // D / {{ elements }}
override parts: u32 = 16;           // lanes * parts <= wg_size
override score_columns: u32 = 512;  // max_chunk, rounded up to what the loops below write
override exchange_size: u32 = 4352;

const LOWEST = -3.4028234e38;
const ROWS = {{ rows }}u;

var<workgroup> exchange: array<f32, exchange_size>;             // parts of dot products, then of sums
var<workgroup> scores: array<f32, ROWS * score_columns>;        // then probabilities
var<workgroup> partials: array<f32, wg_size>;
var<workgroup> eighths: array<f32, ROWS * 8u>;

{% if cache == "int8" %}
{{ query_bytes.functions() }}
{%- endif %}
@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let kv_head = group.x / params.row_blocks;
  let first_row = group.x % params.row_blocks * ROWS;
  let last_row = params.rows - 1u;
  let context = u32(input_pos) + min(first_row + ROWS - 1u, last_row) / params.group_size + 1u;
  let first = group.y * params.chunk;
  if (first >= context) {
    return;
  }
  let count = min(params.chunk, context - first);

  let lane = index % lanes;
  let part = index / lanes;
  let row_loads = lanes * {{ loads }}u;
  let base = (first * params.kv_heads + kv_head) * row_loads + lane;
  let step = params.kv_heads * row_loads;
  let row_width = wg_size / ROWS;
  let own_row = index / row_width;
  let slot = index % row_width;
  let sees = u32(input_pos) + min(first_row + own_row, last_row) / params.group_size + 1u;
  let visible = min(count, max(sees, first) - first);

  let vectors = row_loads * {{ quads }}u;
  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + {{ r }}u, last_row);
  let q{{ r }} = ((row{{ r }} / params.group_size * params.kv_heads + kv_head) * params.group_size
    + row{{ r }} % params.group_size) * vectors + lane * {{ quads }}u;
  {% for e in range(loads * quads) %}
  let q{{ r }}_{{ e }} = params.scale * q[q{{ r }} + {{ e // quads * quads }}u * lanes + {{ e % quads }}u];
  {% endfor %}
  {% if cache == "int8" %}
  {{ query_bytes.extremes(r, loads * quads, "largest%d" % r, "infinite%d" % r) | indent(2) }}
  {{ query_bytes.bytes(r, loads * quads, "largest%d" % r, "infinite%d" % r) | indent(2) }}
  {% endif %}
  {% endfor %}

  {% include "sdpa/flash_decode_scores.wgsl" %}

  {% include "sdpa/flash_decode_softmax.wgsl" %}

  {% include "sdpa/flash_decode_values.wgsl" %}
}
