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
{% import "wgsl/query_bytes.wgsl" as query_bytes %}
{% include "wgsl/kv_cache.wgsl" %}

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

{% macro word(i, e) %}k{{ i }}_{{ e // quads }}{{ "[%d]" % (e % quads) if quads > 1 }}{% endmacro %}
{% macro words(i) %}{% for e in range(loads * quads) %}{{ "," if e }}{{ word(i, e) }}{% endfor %}{% endmacro %}
{% macro exchange_dot(r, i) %}
exchange[({{ r * key_unroll + i }}u * parts + part) * stride + lane] = {{ "k_scale%d * " % i if cache == "int8" }}dot{{ i }}_{{ r }};
{%- endmacro %}
  // Scores of the chunk, a tile of keys at a time, and the largest that this scorer saw. The next tile is on its way
  // while scorers add up the parts of this one. Rows behind the chunk are read as its last one, and never seen.
  let tile_keys = parts * {{ key_unroll }}u;
  {{ declare_rows("k", key_unroll) | indent(2) }}
  {{ load_rows("k", key_unroll, "0u") | indent(2) }}
  let stride = lanes | 1u;  // odd, so that scorers of neighbouring keys read different banks
  var largest = LOWEST;
  for (var tile = 0u; tile < count; tile += tile_keys) {
    if (part < parts) {
      {% for i in range(key_unroll) %}
      {% if cache == "int8" %}
      {% for r in range(rows) %}
      let dot{{ i }}_{{ r }} = step{{ r }} * ({{ query_bytes.dot(r, words(i).split(",")) }});
      {{ exchange_dot(r, i) }}
      {% endfor %}
      {% else %}
      {% for e in range(loads * quads) %}
      let k{{ i }}_quad{{ e }} = cache_quad{{ e % quads }}(k{{ i }}_{{ e // quads }});
      {% endfor %}
      {% for r in range(rows) %}
      let dot{{ i }}_{{ r }} =
        {%- for e in range(loads * quads) %}{{ " +" if e }} dot(q{{ r }}_{{ e }}, k{{ i }}_quad{{ e }}){% endfor %};
      {{ exchange_dot(r, i) }}
      {% endfor %}
      {% endif %}
      {% endfor %}
    }
    if (tile + tile_keys < count) {
      {{ load_rows("k", key_unroll, "tile + tile_keys") | indent(6) }}
    }
    workgroupBarrier();
    if (own_row < ROWS) {
      for (var key = slot; key < tile_keys; key += row_width) {
        let at = (own_row * tile_keys + key) * stride;
        var score = exchange[at];
        for (var l = 1u; l < lanes; l++) {
          score += exchange[at + l];
        }
        largest = max(largest, select(LOWEST, score, tile + key < visible));
        scores[own_row * score_columns + tile + key] = score;
      }
    }
    workgroupBarrier();
  }

  // The first values are on their way during the softmax.
  {{ declare_rows("v", value_unroll) | indent(2) }}
  {{ load_rows("v", value_unroll, "0u") | indent(2) }}

  let tile_rows = parts * {{ value_unroll }}u;
  // Softmax numerators of the chunk: zero where a row sees nothing, as far as the loaders of values read.
  partials[index] = largest;
  workgroupBarrier();
  if (own_row < ROWS && slot < 8u) {
    for (var i = slot + 8u; i < row_width; i += 8u) {
      largest = max(largest, partials[own_row * row_width + i]);
    }
    eighths[own_row * 8u + slot] = largest;
  }
  workgroupBarrier();
  if (own_row < ROWS) {
    for (var i = 0u; i < 8u; i++) {
      largest = max(largest, eighths[own_row * 8u + i]);
    }
    let end = (count + tile_rows - 1u) / tile_rows * tile_rows;
    var total = 0.0;
    for (var column = slot; column < end; column += row_width) {
      let at = own_row * score_columns + column;
      let weight = select(0.0, exp(scores[at] - largest), column < visible);
      scores[at] = weight;
      total += weight;
    }
    partials[index] = total;
  }
  workgroupBarrier();
  if (own_row < ROWS && slot < 8u) {
    var total = partials[index];
    for (var i = slot + 8u; i < row_width; i += 8u) {
      total += partials[own_row * row_width + i];
    }
    eighths[own_row * 8u + slot] = total;
  }

  // Weighted sums of the values; every loader adds up its own rows of the cache.
  {% for r in range(rows) %}
  {% for e in range(loads * quads) %}
  var sum{{ r }}_{{ e }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  let value_part = min(part, parts - 1u);  // what invocations beyond the parts sum, nobody reads
  for (var tile = 0u; tile < count; tile += tile_rows) {
    {% for i in range(value_unroll) %}
    {% for e in range(loads * quads) %}
    let v{{ i }}_quad{{ e }} = cache_quad{{ e % quads }}(v{{ i }}_{{ e // quads }});
    {% endfor %}
    {% for r in range(rows) %}
    let weight{{ i }}_{{ r }} = {{ "v_scale%d * " % i if cache == "int8" }}scores[{{ r }}u * score_columns + tile + {{ i }}u * parts + value_part];
    {% for e in range(loads * quads) %}
    sum{{ r }}_{{ e }} += weight{{ i }}_{{ r }} * v{{ i }}_quad{{ e }};
    {% endfor %}
    {% endfor %}
    {% endfor %}
    if (tile + tile_rows < count) {
      {{ load_rows("v", value_unroll, "tile + tile_rows") | indent(6) }}
    }
  }

  // The parts are added up, {{ rows_per_round }} packed row(s) at a time. Padding keeps elements of a load in different banks.
  let padded = wg_size + {{ [32 // elements, 1] | max }}u;
  let head_dim = lanes * {{ elements }}u;
  {% for start in range(0, rows, rows_per_round) %}
  {% set round_rows = [rows_per_round, rows - start] | min %}
  {% for r in range(round_rows) %}
  {% for e in range(elements) %}
  exchange[{{ r * elements + e }}u * padded + index] = sum{{ start + r }}_{{ e // 4 }}[{{ e % 4 }}];
  {% endfor %}
  {% endfor %}
  workgroupBarrier();
  for (var i = index; i < {{ round_rows }}u * head_dim; i += wg_size) {
    let r = i / head_dim;
    let dim = i % head_dim;
    let load = dim / {{ width }}u;
    let element = load / lanes * {{ width }}u + dim % {{ width }}u;
    let at = (r * {{ elements }}u + element) * padded + load % lanes;
    var sum = exchange[at];
    for (var p = 1u; p < parts; p++) {
      sum += exchange[at + p * lanes];
    }
    let row = first_row + {{ start }}u + r;
    if (row <= last_row) {
      if (params.splits == 1u) {
        var total = 0.0;
        for (var j = 0u; j < 8u; j++) {
          total += eighths[({{ start }}u + r) * 8u + j];
        }
        let head = (row / params.group_size * params.kv_heads + kv_head) * params.group_size + row % params.group_size;
        out[head * head_dim + dim] = sum / total;
      } else {
        sums[((kv_head * params.rows + row) * params.splits + group.y) * head_dim + dim] = sum;
      }
    }
  }
  {% if start + round_rows < rows %}
  workgroupBarrier();
  {% endif %}
  {% endfor %}
  if (own_row < ROWS && slot == 0u && first_row + own_row <= last_row) {
    var total = 0.0;
    for (var j = 0u; j < 8u; j++) {
      total += eighths[own_row * 8u + j];
    }
    if (params.splits > 1u) {
      stats[(kv_head * params.rows + first_row + own_row) * params.splits + group.y] = vec2<f32>(largest, total);
    }
  }
}
