{#
Streaming attention on tensor cores: Q K^T and P V by subgroup matrices of 16 x 16, sums in float32.

A workgroup computes 16 * ROW_BLOCKS packed rows (see wgsl/packed_rows) of one KV head, in tiles of KEYS columns: SPLIT
subgroups, each with its part of D, have 16 rows, and two lanes the softmax of a row. Elements of the cache are float16,
or codes that float16 holds.

Matrices cannot be read by element, so scores go to workgroup memory and come back as probabilities in float16. The
loop is a pipeline: while a tile's softmax runs, the next tile's scores are multiplied. Keys and values are on their way
during half of that only, since registers are what is short. The sums are scaled again only when a row's maximum has
grown by more than RESCALE. Matrices lie at constant offsets of an inner array, because Tint guards those at other
offsets by a branch each.

Inputs:
  exact = True | False: whether Q is the sum of two float16 matrices, which keeps scores as exact as float32 sums
  subgroups = 4 | 8: of a workgroup
  keys = 32 | 16: columns of a tile
  split = 1 | 2: subgroups that share 16 rows
  cache = "float16" | "int8": what an element of the cache is
  head_dim = 64 | 80 | 128: D
  width = 8: elements of a load of the cache, at most 16 bytes
  paged = False | True: workgroups have spans of rows, each of one sequence, whose caches lie in pages
  out_parts = 0 | 2 | 1: the result is float32, or, of eights of a head, rows split to so many float16 numbers
  out_pairs = 0 | 4 | 8: see split_eights.wgsl
#}
{% set int8 = cache == "int8" %}
{% set lanes = 32 * subgroups %}
{% set row_blocks = subgroups // split %}
{% set dims = ((head_dim + 15) // 16 + split - 1) // split %}
{% set unit = 8 if head_dim % 8 == 0 else 4 %}
{% set words = 16 * dims // unit %}
{% set quads = keys // 8 %}
{% set row_loads = head_dim // width %}
{% set loads = (keys * row_loads + lanes - 1) // lanes %}
{% if out_parts %}
{% include "wgsl/split_eights.wgsl" %}
{% else %}
{% include "wgsl/halves.wgsl" %}
{% endif %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/packed_rows.wgsl" %}
{% include "wgsl/pages.wgsl" %}
{% include "attention/row_spans.wgsl" %}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;          // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k_cache: array<CacheLoad>;    // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read> v_cache: array<CacheLoad>;
{% if not out_parts %}
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;  // [S, Hq, D]
{% endif %}
{% if int8 %}
@group(0) @binding(6) var<storage, read> k_scales: array<f32>;         // [Cmax, Hkv]
@group(0) @binding(7) var<storage, read> v_scales: array<f32>;
{% endif %}

struct Params {
  group_size: u32,
  kv_heads: u32,
  tokens: u32,     // S
  scale: f32,      // of the scores, times log2(e)
  table_width: u32,  // pages that a sequence may have; 0 without pages
  page_shift: u32,
{% if out_parts %}
  out_words: u32,    // of a step along the result's own columns
{% endif %}
}
@group(0) @binding(4) var<uniform> params: Params;
{% if not paged %}@group(0) @binding(5) var<uniform> input_pos: i32;{% endif %}

const SUBGROUPS = {{ subgroups }}u;
const LANES = 32u * SUBGROUPS;
const SPLIT = {{ split }}u;
const ROW_BLOCKS = SUBGROUPS / SPLIT;
const KEYS = {{ keys }}u;
const HEAD_QUADS = {{ head_dim // 4 }}u;
const ROW_LOADS = {{ row_loads }}u;          // loads that a head is long
const LOAD_WORDS = {{ width // unit }}u;     // of Staged, in a load
const UNIT = {{ unit }}u;                    // float16 of a Staged
const TILE_WORDS = 16u / UNIT;               // of a row of a matrix
const DIMS = {{ dims }}u;                    // matrices along a subgroup's part of D
const WORDS = DIMS * TILE_WORDS;             // of a part of D
const HEAD_WORDS = {{ head_dim // unit }}u;  // of what is not padding
// Rows in workgroup memory are 16 bytes longer than they must be, so that those of a column lie in several banks.
const KV_STRIDE = WORDS + 8u / UNIT;
const S_STRIDE = KEYS / 4u + 1u;
const P_STRIDE = KEYS / 8u + 1u;
const QUADS = KEYS / 8u;  // vec4s of scores in half a row
const RESCALE = 8.0;      // probabilities stay below 2^8

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;
alias Staged = vec{{ unit // 2 }}<u32>;  // UNIT float16

// Every variable is a multiple of 16 bytes: the driver lays them out one after the other.
// For each part of D [KEYS, UNIT * KV_STRIDE]; before the loop they hold rows of Q.
var<workgroup> k_tile: array<array<Staged, KEYS * KV_STRIDE>, SPLIT>;
var<workgroup> v_tile: array<array<Staged, KEYS * KV_STRIDE>, SPLIT>;
var<workgroup> probabilities: array<array<vec4<u32>, 16u * P_STRIDE>, SUBGROUPS>;
var<workgroup> scores: array<array<vec4<f32>, 16u * S_STRIDE>, SUBGROUPS>;
{% if int8 %}var<workgroup> k_steps: array<array<f32, KEYS>, 2>;{% endif %}  // of this tile and the next one
var<workgroup> grown: array<atomic<u32>, 4>;

// The second four are zeros where UNIT is 4.
fn packed(low: vec4<f32>, high: vec4<f32>) -> Staged {
  return halves(low, high){{ "" if unit == 8 else ".xy" }};
}

{% include "attention/flash_matrix/cache_load.wgsl" %}
{# A tile of keys ("k") or values ("v") that begins at column `tile`: from storage to registers, ... #}
{% macro load(x) %}
{% if int8 and x == "k" %}
k_step = k_scales[pool_row(table, min(tile + index % KEYS, context - 1u), shift) * params.kv_heads + kv_head];
{% endif %}
{% for i in range(loads) %}
let at{{ i }} = pool_row(table, min(tile + load_row{{ i }}, context - 1u), shift);
{% if int8 and x == "v" %}
v_step{{ i }} = v_scales[at{{ i }} * params.kv_heads + kv_head];
{% endif %}
{{ x }}{{ i }} = {{ x }}_cache[at{{ i }} * cache_row + cache_head + load_word{{ i }}];
{% endfor %}
{% endmacro %}
{# ... from there to workgroup memory; the steps of keys go to k_steps[parity]. #}
{% macro stage(x) %}
{% if int8 and x == "k" %}
if (index < KEYS) {
  k_steps[parity][index] = k_step;
}
{% endif %}
{% for i in range(loads) %}
if ({{ i + 1 }}u * LANES <= KEYS * ROW_LOADS || load_row{{ i }} < KEYS) {
  {% for j in range(width // unit) %}
  let word{{ j }} = load_word{{ i }} * LOAD_WORDS + {{ j }}u;
  let to{{ j }} = load_row{{ i }} * KV_STRIDE + word{{ j }} % WORDS;
  {% if not int8 %}
  {{ x }}_tile[word{{ j }} / WORDS][to{{ j }}] = {{ x }}{{ i }};
  {% elif x == "k" %}
  k_tile[word{{ j }} / WORDS][to{{ j }}] = staged_k{{ j }}(k{{ i }});
  {% else %}
  v_tile[word{{ j }} / WORDS][to{{ j }}] = staged_v{{ j }}(v{{ i }}, v_step{{ i }});
  {% endif %}{% endfor %}
}
{% endfor %}
{% endmacro %}
{# Q K^T of a tile, to the memory of the scores #}
{% macro products() %}
{% for n in range(0, keys, 16) %}
var s{{ n }} = Sum(0.0);
{% endfor %}
{% for d in range(dims) %}{% for n in range(0, keys, 16) %}
let key{{ d }}_{{ n }} = subgroupMatrixLoad<Right, col_major>(
  &k_tile[part], {{ n }}u * KV_STRIDE + {{ d }}u * TILE_WORDS, KV_STRIDE);
{% endfor %}
{% for n in range(0, keys, 16) %}
s{{ n }} = subgroupMatrixMultiplyAccumulate(q{{ d }}, key{{ d }}_{{ n }}, s{{ n }});
{% endfor %}
{% if exact %}
{% for n in range(0, keys, 16) %}
s{{ n }} = subgroupMatrixMultiplyAccumulate(rest{{ d }}, key{{ d }}_{{ n }}, s{{ n }});
{% endfor %}{% endif %}{% endfor %}
{% for n in range(0, keys, 16) %}
subgroupMatrixStore<row_major>(&scores[subgroup], {{ n // 4 }}u, s{{ n }}, S_STRIDE);
{% endfor %}
{% endmacro %}
{# The scores of a tile out of there; the steps of its keys are k_steps[parity]. #}
{% macro take_scores() %}
{% for j in range(quads) %}
{% if split == 1 %}
score{{ j }} = scores[subgroup][my_scores + {{ j }}u];
{% else %}
score{{ j }} = scores[subgroup / 2u * 2u][my_scores + {{ j }}u] + scores[subgroup / 2u * 2u + 1u][my_scores + {{ j }}u];
{% endif %}
{% if int8 %}
score{{ j }} *= vec4<f32>(
  k_steps[parity][my_first + {{ 4 * j }}u], k_steps[parity][my_first + {{ 4 * j + 1 }}u],
  k_steps[parity][my_first + {{ 4 * j + 2 }}u], k_steps[parity][my_first + {{ 4 * j + 3 }}u]);
{% endif %}{% endfor %}
{% endmacro %}
@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let kv_head = group.y;
  {% if paged %}
  let span = row_span(group.x);
  let first_row = 0u;
  {% else %}
  let span = RowSpan(0u, params.tokens, u32(input_pos), 0u);
  let first_row = (groups.x - 1u - group.x) * (16u * ROW_BLOCKS);  // the last rows see the most keys: begin with them
  {% endif %}
  if (span.rows == 0u) {
    return;
  }
  let table = span.sequence * params.table_width;
  let shift = params.page_shift;
  let row_count = span.rows * params.group_size;
  let position = span.position;
  let context = position + span.rows;  // rows of the cache that hold something
  let last_row = min(first_row + 16u * ROW_BLOCKS, row_count) - 1u;
  let columns = position + last_row / params.group_size + 1u;  // that the last row sees
  let part = subgroup % SPLIT;
  let block = subgroup / SPLIT;

  // ---- the first keys ----
  let cache_row = params.kv_heads * ROW_LOADS;
  let cache_head = kv_head * ROW_LOADS;
  {% for i in range(loads) %}
  let load_row{{ i }} = (index + {{ i }}u * LANES) / ROW_LOADS;
  let load_word{{ i }} = (index + {{ i }}u * LANES) % ROW_LOADS;
  var k{{ i }}: CacheLoad;
  var v{{ i }}: CacheLoad;
  var v_step{{ i }}: f32;  // of int8 caches
  {% endfor %}
  var k_step: f32;
  {
    let tile = 0u;
    {{ load("k") | indent(4) }}
  }

  // ---- Q, KEYS rows at a time: q through the memory of keys, rest through that of values ----
  {% for d in range(dims) %}
  var q{{ d }}: Left;
  {% if exact %}
  var rest{{ d }}: Left;
  {% endif %}
  var o{{ d }} = Sum(0.0);
  {% endfor %}
  {% set q_loads = (keys * split * words + lanes - 1) // lanes %}
  {% for first in range(0, 16 * row_blocks, keys) %}{% for i in range(q_loads) %}
  {% set x = "x%d_%d" % (first, i) %}
  var {{ x }}_0 = vec4<f32>();
  var {{ x }}_1 = vec4<f32>();
  {
    let place = index + {{ i }}u * LANES;
    let word = place % (SPLIT * WORDS);
    let row = min(first_row + {{ first }}u + place / (SPLIT * WORDS), last_row);
    let head = query_head(span.row * params.group_size + row, kv_head, params.kv_heads, params.group_size);
    if (SPLIT * WORDS == HEAD_WORDS || word < HEAD_WORDS) {
      {% for j in range(unit // 4) %}
      {{ x }}_{{ j }} = bounded(params.scale * like_keys(q[head * HEAD_QUADS + word * (UNIT / 4u) + {{ j }}u]));
      {% endfor %}
    }
  }
  {% endfor %}{% endfor %}
  {% for first in range(0, 16 * row_blocks, keys) %}{% for i in range(q_loads) %}
  {% set x = "x%d_%d" % (first, i) %}
  if ({{ i + 1 }}u * LANES <= KEYS * SPLIT * WORDS || index + {{ i }}u * LANES < KEYS * SPLIT * WORDS) {
    let place = index + {{ i }}u * LANES;
    let to = place / (SPLIT * WORDS) * KV_STRIDE + place % WORDS;
    let to_part = place % (SPLIT * WORDS) / WORDS;
    {% if exact %}
    k_tile[to_part][to] = packed(upper({{ x }}_0), upper({{ x }}_1));
    v_tile[to_part][to] = packed({{ x }}_0 - upper({{ x }}_0), {{ x }}_1 - upper({{ x }}_1));
    {% else %}
    k_tile[to_part][to] = packed({{ x }}_0, {{ x }}_1);
    {% endif %}
  }
  {% endfor %}
  workgroupBarrier();
  {% for row in range(0, keys, 16) %}
  if (block == {{ (first + row) // 16 }}u) {
    {% for d in range(dims) %}
    q{{ d }} = subgroupMatrixLoad<Left, row_major>(
      &k_tile[part], {{ row }}u * KV_STRIDE + {{ d }}u * TILE_WORDS, KV_STRIDE);
    {% if exact %}
    rest{{ d }} = subgroupMatrixLoad<Left, row_major>(
      &v_tile[part], {{ row }}u * KV_STRIDE + {{ d }}u * TILE_WORDS, KV_STRIDE);
    {% endif %}{% endfor %}
  }
  {% endfor %}
  workgroupBarrier();
  {% endfor %}
  for (var i = index; i < KEYS; i += LANES) {  // dims past the head are zeros, which no tile overwrites
    for (var j = HEAD_WORDS; j < SPLIT * WORDS; j++) {
      k_tile[j / WORDS][i * KV_STRIDE + j % WORDS] = Staged();
      v_tile[j / WORDS][i * KV_STRIDE + j % WORDS] = Staged();
    }
  }

  // ---- the scores of the first tile; a lane has half of a row ----
  let row = lane % 16u;
  let side = lane / 16u;
  let packed_row = min(first_row + block * 16u + row, row_count - 1u);
  let visible = position + packed_row / params.group_size + 1u;
  let my_first = side * (KEYS / 2u);
  let my_columns = vec4<u32>(my_first) + vec4<u32>(0u, 1u, 2u, 3u);
  let my_scores = row * S_STRIDE + side * QUADS;
  let my_probabilities = row * P_STRIDE + side * (KEYS / 16u);
  var largest = LOWEST;
  var total = 0.0;
  {% for j in range(quads) %}
  var score{{ j }}: vec4<f32>;
  {% endfor %}
  {
    let parity = 0u;
    {{ stage("k") | indent(4) }}
    let tile = KEYS;
    {{ load("k") | indent(4) }}
    if (index == 0u) {
      atomicStore(&grown[0], 0u);
    }
    workgroupBarrier();
    {{ products() | indent(4) }}
    workgroupBarrier();
    {{ take_scores() | indent(4) }}
  }
  {
    let parity = 1u;
    {{ stage("k") | indent(4) }}
  }
  workgroupBarrier();

  for (var tile_start = 0u; tile_start < columns; tile_start += KEYS) {
    // ---- the next tile's scores; after the last tile these are some numbers that nothing reads ----
    {
      let tile = tile_start;
      {{ load("v") | indent(6) }}
    }
    {{ products() | indent(4) }}

    // ---- this one's softmax: half a row a lane, no branch, so that it mixes with the products above ----
    {% for j in range(quads) %}
    score{{ j }} =
      select(vec4<f32>(LOWEST), score{{ j }}, my_columns + (tile_start + {{ 4 * j }}u) < vec4<u32>(visible));
    {% endfor %}
    var most = score0;
    {% for j in range(1, quads) %}
    most = max(most, score{{ j }});
    {% endfor %}
    let side_top = max(max(most.x, most.y), max(most.z, most.w));
    let top = max(side_top, subgroupShuffleXor(side_top, 16u));
    let before = largest;
    largest = select(before, top, top > before + RESCALE);
    let factor = exp2(max(before - largest, -200.0));
    var sum = vec4<f32>();
    {% for j in range(quads) %}
    let weight{{ j }} = exp2(score{{ j }} - largest);
    sum += weight{{ j }};
    {% endfor %}
    {% for j in range(0, quads, 2) %}
    probabilities[subgroup][my_probabilities + {{ j // 2 }}u] = halves(weight{{ j }}, weight{{ j + 1 }});
    {% endfor %}
    total = total * factor + sum.x + sum.y + sum.z + sum.w;
    if (largest > before && tile_start > 0u) {
      atomicStore(&grown[0], 1u);
    }
    {{ stage("v") | indent(4) }}

    // ---- sums are scaled, half a row a lane, through the memory of the scores, KEYS dims at a time ----
    if (workgroupUniformLoad(&grown[0]) != 0u) {
      // The next tile's scores wait there: they are taken out first and put back at the end.
      {% for j in range(quads) %}
      let waiting{{ j }} = scores[subgroup][my_scores + {{ j }}u];
      {% endfor %}
      workgroupBarrier();
      {% for first in range(0, dims, keys // 16) %}
      {% set tiles = range(first, [first + keys // 16, dims] | min) %}
      {% for d in tiles %}
      subgroupMatrixStore<row_major>(&scores[subgroup], {{ 4 * (d - first) }}u, o{{ d }}, S_STRIDE);
      {% endfor %}
      workgroupBarrier();
      for (var j = 0u; j < QUADS; j++) {
        scores[subgroup][my_scores + j] *= factor;
      }
      workgroupBarrier();
      {% for d in tiles %}
      o{{ d }} = subgroupMatrixLoad<Sum, row_major>(&scores[subgroup], {{ 4 * (d - first) }}u, S_STRIDE);
      {% endfor %}
      workgroupBarrier();
      {% endfor %}
      {% for j in range(quads) %}
      scores[subgroup][my_scores + {{ j }}u] = waiting{{ j }};
      {% endfor %}
      workgroupBarrier();
    }
    if (index == 0u) {
      atomicStore(&grown[0], 0u);
    }

    // ---- this tile's values; the scores of the next one, and the keys of the one after that ----
    {
      let tile = tile_start + 2u * KEYS;
      {{ load("k") | indent(6) }}
      let parity = 1u - tile_start / KEYS % 2u;
      {{ take_scores() | indent(6) }}
    }
    {% for n in range(0, keys, 16) %}
    let p{{ n }} = subgroupMatrixLoad<Left, row_major>(&probabilities[subgroup], {{ n // 8 }}u, P_STRIDE);
    {% endfor %}
    {% for n in range(0, keys, 16) %}{% for first in range(0, dims, 4) %}{% for d in range(first, [first + 4, dims] | min) %}
    let value{{ n }}_{{ d }} = subgroupMatrixLoad<Right, row_major>(
      &v_tile[part], {{ n }}u * KV_STRIDE + {{ d }}u * TILE_WORDS, KV_STRIDE);
    {% endfor %}
    {% for d in range(first, [first + 4, dims] | min) %}
    o{{ d }} = subgroupMatrixMultiplyAccumulate(p{{ n }}, value{{ n }}_{{ d }}, o{{ d }});
    {% endfor %}{% endfor %}{% endfor %}
    {
      let parity = tile_start / KEYS % 2u;
      {{ stage("k") | indent(6) }}
    }
    workgroupBarrier();
  }

  // ---- out, through the memory of the scores, KEYS dims at a time ----
  let inverse = 1.0 / (total + subgroupShuffleXor(total, 16u));
  let to =
    query_head(span.row * params.group_size + packed_row, kv_head, params.kv_heads, params.group_size) * HEAD_QUADS;
  {% if out_parts %}
  let row_quads = params.kv_heads * params.group_size * HEAD_QUADS;
  {% endif %}
  let is_mine = first_row + block * 16u + row < row_count;
  {% for first in range(0, dims, keys // 16) %}{% for d in range(first, [first + keys // 16, dims] | min) %}
  subgroupMatrixStore<row_major>(&scores[subgroup], {{ 4 * (d - first) }}u, o{{ d }}, S_STRIDE);
  {% endfor %}
  workgroupBarrier();
  for (var j = 0u; j < QUADS; j += {{ 2 if out_parts else 1 }}u) {
    let local_quad = {{ 4 * first }}u + side * QUADS + j;
    let quad = part * (4u * DIMS) + local_quad;
    if (is_mine && local_quad < 4u * DIMS && quad < HEAD_QUADS) {
      {% if out_parts %}
      let low = scores[subgroup][my_scores + j] * inverse;
      let high = scores[subgroup][my_scores + j + 1u] * inverse;
      store_eight((to + quad) % row_quads / 2u, packed_row / params.group_size, params.tokens, params.out_words, low, high);
      {% else %}
      out[to + quad] = scores[subgroup][my_scores + j] * inverse;
      {% endif %}
    }
  }
  workgroupBarrier();
  {% endfor %}
}
