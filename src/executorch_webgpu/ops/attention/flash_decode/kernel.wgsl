{#
Attention of up to ROWS packed rows over one split of the context: K and V are read once for all of them.

For keys and values an invocation is a loader: `lanes` of them hold a row of the cache, LOADS loads each, and `parts`
rows of the cache are read at a time. Queries and sums stay in registers. For scores it is a scorer: wg_size / ROWS of
them share the columns of one packed row (see wgsl/packed_rows). A split that is the whole context writes `out`;
otherwise attention/merge_splits puts the splits together.

Inputs:
  rows = 2 | 1 | 3 | 4 | 6 | 8 | 12 | 16: packed rows of a workgroup
  rows_per_round = 2 | 1: rows whose sums are added up at a time
  width = 4 | 8 | 16: elements of a load, at most 16 bytes
  loads = 1 | 2: loads of a row of the cache by an invocation
  key_unroll = 2 | 1 | 4: rows of K that it loads before it uses them
  value_unroll = 4 | 1 | 8: rows of V
  cache = "int8" | "float16" | "float32": what an element of the cache is
  paged = False | True: workgroups have rows of one token each, whose cache lies in pages
  listed = False | True: whether workgroups take the tokens of a list, not all
#}
{% set quads = width // 4 %}
{% set vectors = loads * quads %}
{% set elements = loads * width %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/packed_rows.wgsl" %}
{% if paged %}
{% include "attention/row_places.wgsl" %}
{% include "wgsl/pages.wgsl" %}
{% endif %}
{% if cache == "int8" %}
{% include "wgsl/query_bytes.wgsl" %}
{% endif %}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;            // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k_cache: array<CacheLoad>;      // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read> v_cache: array<CacheLoad>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;          // [S, Hq, D]
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;         // [Hkv, rows, splits, D], not normalized
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;  // [Hkv, rows, splits]: maximum, total
{% if cache == "int8" %}
@group(0) @binding(8) var<storage, read> k_scales: array<f32>;           // [Cmax, Hkv]
@group(0) @binding(9) var<storage, read> v_scales: array<f32>;
{% endif %}

struct Params {
  rows: u32,        // packed rows of a KV head, S * group_size
  row_blocks: u32,  // rows / ROWS, rounded up
  group_size: u32,  // Hq / Hkv
  kv_heads: u32,
  chunk: u32,       // columns of a split
  splits: u32,      // that were planned; those past the context have nothing to do
  scale: f32,
{% if paged %}
  first_token: u32,      // of those that this dispatch attends with
  blocks_of_token: u32,  // of ROWS packed rows each
  table_width: u32,      // pages that a sequence may have
  page_shift: u32,
{% endif %}
}
@group(0) @binding(6) var<uniform> params: Params;
{% if not paged %}
@group(0) @binding(7) var<uniform> input_pos: i32;
{% endif %}

const ROWS = {{ rows }}u;
const WIDTH = {{ width }}u;
const QUADS = WIDTH / 4u;  // vec4s of a load
const LOADS = {{ loads }}u;
const ELEMENTS = WIDTH * LOADS;
const KEY_UNROLL = {{ key_unroll }}u;
const VALUE_UNROLL = {{ value_unroll }}u;

override wg_size: u32 = 256;
override lanes: u32 = 16;           // D / ELEMENTS
override parts: u32 = 16;           // lanes * parts <= wg_size
override score_columns: u32 = 512;  // the longest split, rounded up to what the loops below write
override exchange_size: u32 = 4352;

var<workgroup> exchange: array<f32, exchange_size>;       // parts of dot products, then of sums
var<workgroup> scores: array<f32, ROWS * score_columns>;  // then weights
var<workgroup> partials: array<f32, wg_size>;
var<workgroup> eighths: array<f32, ROWS * 8u>;

// The sum of the weights of a row, once its scorers have left it in eighths.
fn row_total(row: u32) -> f32 {
  var total = 0.0;
  for (var j = 0u; j < 8u; j++) {
    total += eighths[row * 8u + j];
  }
  return total;
}

{# Rows of K or V on their way, from column `next` of the split on. Rows past it are read as its last one. #}
{% macro declare_loads(x, unroll) %}
{% for i in range(unroll) %}
{% for l in range(loads) %}
var {{ x }}{{ i }}_{{ l }}: CacheLoad;
{% endfor %}
{% if cache == "int8" %}
var {{ x }}_scale{{ i }}: f32;
{% endif %}
{% endfor %}
{% endmacro %}
{% macro load(x, unroll) %}
{% for i in range(unroll) %}
let row{{ i }} = first + min(next + {{ i }}u * parts + part, count - 1u);
{% if paged %}
let at{{ i }} = pool_row(table, row{{ i }}, params.page_shift);
{% else %}
let at{{ i }} = row{{ i }};
{% endif %}
{% for l in range(loads) %}
{{ x }}{{ i }}_{{ l }} = {{ x }}_cache[base + at{{ i }} * step + {{ l }}u * lanes];
{% endfor %}
{% if cache == "int8" %}
{{ x }}_scale{{ i }} = {{ x }}_scales[at{{ i }} * params.kv_heads + kv_head];
{% endif %}
{% endfor %}
{% endmacro %}
@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let kv_head = group.x / params.row_blocks;
  let block = group.x % params.row_blocks;
  {% if paged %}
  // Rows of a workgroup are of one token, so that they see the same rows of the same pages.
  let token = block / params.blocks_of_token;  // among those of this dispatch
  let place = row_place(params.first_token + token);
  let table = place.sequence * params.table_width;
  let position = place.position;
  let rows_before = place.row * params.group_size;  // packed rows of q and out
  let first_row = block % params.blocks_of_token * ROWS;
  let last_row = params.group_size - 1u;
  {% else %}
  let token = 0u;
  let position = u32(input_pos);
  let rows_before = 0u;
  let first_row = block * ROWS;
  let last_row = params.rows - 1u;
  {% endif %}
  let context = position + min(first_row + ROWS - 1u, last_row) / params.group_size + 1u;
  let is_whole = {{ "context <= params.chunk" if paged else "params.splits == 1u" }};
  let first = group.y * params.chunk;
  if (first >= context) {
    return;
  }
  let count = min(params.chunk, context - first);

  // As a loader.
  let lane = index % lanes;
  let part = index / lanes;
  let row_loads = lanes * LOADS;
  let base = kv_head * row_loads + lane;
  let step = params.kv_heads * row_loads;
  // As a scorer.
  let row_width = wg_size / ROWS;
  let own_row = index / row_width;
  let slot = index % row_width;
  let sees = position + min(first_row + own_row, last_row) / params.group_size + 1u;
  let visible = min(count, max(sees, first) - first);

  // ---- queries, times the scale of the scores; against int8 codes as integers of three bytes ----
  {% for r in range(rows) %}
  let row{{ r }} = rows_before + min(first_row + {{ r }}u, last_row);
  let head{{ r }} = query_head(row{{ r }}, kv_head, params.kv_heads, params.group_size);
  let q{{ r }} = (head{{ r }} * row_loads + lane) * QUADS;
  {% for e in range(vectors) %}
  let q{{ r }}_{{ e }} = params.scale * q[q{{ r }} + {{ e // quads }}u * QUADS * lanes + {{ e % quads }}u];
  {% endfor %}
  {% if cache == "int8" %}
  var largest{{ r }} = 0.0;
  var exponent{{ r }} = 0u;
  {% for e in range(vectors) %}
  largest{{ r }} = max(largest{{ r }}, largest_of(q{{ r }}_{{ e }}));
  exponent{{ r }} = max(exponent{{ r }}, exponent_bits(q{{ r }}_{{ e }}));
  {% endfor %}
  let step{{ r }} = query_step(largest{{ r }}, exponent{{ r }});
  {% for e in range(vectors) %}
  let bytes{{ r }}_{{ e }} = query_bytes(q{{ r }}_{{ e }}, step{{ r }});
  {% endfor %}
  {% endif %}
  {% endfor %}

  // ---- scores, a tile of keys at a time, and the largest that this scorer saw ----
  // The next tile is on its way while scorers add up the parts of this one.
  let tile_keys = parts * KEY_UNROLL;
  let stride = lanes | 1u;  // odd, so that scorers of neighbouring keys read different banks
  var largest = LOWEST;
  {{ declare_loads("k", key_unroll) | indent(2) }}
  {
    let next = 0u;
    {{ load("k", key_unroll) | indent(4) }}
  }
  for (var tile = 0u; tile < count; tile += tile_keys) {
    if (part < parts) {
      {% for i in range(key_unroll) %}
      {% if cache != "int8" %}
      {% for e in range(vectors) %}
      let key{{ i }}_{{ e }} = cache_quad{{ e % quads }}(k{{ i }}_{{ e // quads }});
      {% endfor %}
      {% endif %}
      {% for r in range(rows) %}
      {% if cache == "int8" %}
      var dots{{ i }}_{{ r }} = vec3<i32>();
      {% for e in range(vectors) %}
      dots{{ i }}_{{ r }} += query_dot(bytes{{ r }}_{{ e }}, cache_four{{ e % quads }}(k{{ i }}_{{ e // quads }}));
      {% endfor %}
      let dot{{ i }}_{{ r }} = k_scale{{ i }} * (step{{ r }} * query_sum(dots{{ i }}_{{ r }}));
      {% else %}
      var dot{{ i }}_{{ r }} = dot(q{{ r }}_0, key{{ i }}_0);
      {% for e in range(1, vectors) %}
      dot{{ i }}_{{ r }} += dot(q{{ r }}_{{ e }}, key{{ i }}_{{ e }});
      {% endfor %}
      {% endif %}
      exchange[(({{ r }}u * KEY_UNROLL + {{ i }}u) * parts + part) * stride + lane] = dot{{ i }}_{{ r }};
      {% endfor %}
      {% endfor %}
    }
    let next = tile + tile_keys;
    if (next < count) {
      {{ load("k", key_unroll) | indent(6) }}
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

  // ---- softmax; the first values are on their way meanwhile ----
  let tile_rows = parts * VALUE_UNROLL;
  {{ declare_loads("v", value_unroll) | indent(2) }}
  {
    let next = 0u;
    {{ load("v", value_unroll) | indent(4) }}
  }
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
    // Zero where a row sees nothing, as far as the loaders of values read.
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

  // ---- weighted sums of the values; every loader adds up its own rows of the cache ----
  {% for r in range(rows) %}{% for e in range(vectors) %}
  var sum{{ r }}_{{ e }} = vec4<f32>();
  {% endfor %}{% endfor %}
  let value_part = min(part, parts - 1u);  // nothing reads what invocations beyond the parts sum
  for (var tile = 0u; tile < count; tile += tile_rows) {
    {% for i in range(value_unroll) %}
    {% for e in range(vectors) %}
    let value{{ i }}_{{ e }} = cache_quad{{ e % quads }}(v{{ i }}_{{ e // quads }});
    {% endfor %}
    {% for r in range(rows) %}
    {% if cache == "int8" %}
    let weight{{ i }}_{{ r }} = v_scale{{ i }} * scores[{{ r }}u * score_columns + tile + {{ i }}u * parts + value_part];
    {% else %}
    let weight{{ i }}_{{ r }} = scores[{{ r }}u * score_columns + tile + {{ i }}u * parts + value_part];
    {% endif %}
    {% for e in range(vectors) %}
    sum{{ r }}_{{ e }} += weight{{ i }}_{{ r }} * value{{ i }}_{{ e }};
    {% endfor %}
    {% endfor %}
    {% endfor %}
    let next = tile + tile_rows;
    if (next < count) {
      {{ load("v", value_unroll) | indent(6) }}
    }
  }

  // ---- the parts are added up, some packed rows at a time ----
  let padded = wg_size + max(1u, 32u / ELEMENTS);  // so that elements of a load lie in different banks
  let head_dim = lanes * ELEMENTS;
  {% for start in range(0, rows, rows_per_round) %}
  {% set round_rows = [rows_per_round, rows - start] | min %}
  {% for r in range(round_rows) %}{% for e in range(elements) %}
  exchange[{{ r * elements + e }}u * padded + index] = sum{{ start + r }}_{{ e // 4 }}[{{ e % 4 }}];
  {% endfor %}{% endfor %}
  workgroupBarrier();
  for (var i = index; i < {{ round_rows }}u * head_dim; i += wg_size) {
    let r = i / head_dim;
    let dim = i % head_dim;
    let load = dim / WIDTH;
    let element = load / lanes * WIDTH + dim % WIDTH;
    let at = (r * ELEMENTS + element) * padded + load % lanes;
    var sum = exchange[at];
    for (var p = 1u; p < parts; p++) {
      sum += exchange[at + p * lanes];
    }
    let row = first_row + {{ start }}u + r;
    if (row <= last_row) {
      if (is_whole) {
        let head = query_head(rows_before + row, kv_head, params.kv_heads, params.group_size);
        out[head * head_dim + dim] = sum / row_total({{ start }}u + r);
      } else {
        let at = (kv_head * params.rows + token * params.group_size + row) * params.splits + group.y;
        sums[at * head_dim + dim] = sum;
      }
    }
  }
  {% if start + round_rows < rows %}
  workgroupBarrier();
  {% endif %}
  {% endfor %}
  if (own_row < ROWS && slot == 0u && first_row + own_row <= last_row && !is_whole) {
    let packed_row = token * params.group_size + first_row + own_row;
    let at = (kv_head * params.rows + packed_row) * params.splits + group.y;
    stats[at] = vec2<f32>(largest, row_total(own_row));
  }
}
