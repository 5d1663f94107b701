// Streaming attention on tensor cores: Q K^T and P V by subgroup matrices of 16 x 16, sums in float32.
//
// A workgroup computes {{ 16 * subgroups // split }} packed rows (token * group + head in the group) of one KV head, in tiles of
// {{ keys }} columns; {{ "a subgroup" if split == 1 else "two subgroups, each with half of D," }} 16 rows, and two lanes the softmax of a row. {{ "Scores are as exact as float32 sums:
// Q is the sum of two float16 matrices, q and rest, and" if exact else "Q is rounded to float16," }} a cache's elements are float16, or codes that float16 holds.
//
// Matrices cannot be read by element, so scores go to workgroup memory and come back as probabilities in float16. The
// loop is a pipeline: while a tile's softmax runs, the next tile's scores are multiplied. Keys and values are on their way
// during half of that only, since registers are what is short.
// The sums are scaled again only when a row's maximum has grown by more than RESCALE. Matrices lie at constant
// offsets of an inner array, because Tint guards those at other offsets by a branch each.
{% set lanes = 32 * subgroups %}
{% set row_blocks = subgroups // split %}
{% set dims = ((head_dim + 15) // 16 + split - 1) // split %}
{% set unit = 8 if head_dim % 8 == 0 else 4 %}
{% set words = 16 * dims // unit %}
{% set head_words = head_dim // unit %}
{# Rows in workgroup memory are 16 bytes longer than they must be, so that those of a column lie in several banks. #}
{% set kv_row = words + 8 // unit %}
{% set s_row = keys // 4 + 1 %}
{% set p_row = keys // 8 + 1 %}
{% set quads = keys // 8 %}
{% set row_loads = head_dim // width %}
{% set loads = (keys * row_loads + lanes - 1) // lanes %}
{% set int8 = cache == "int8" %}
{% set order = ".xzyw" if int8 else "" %}
{% from "sdpa/flash_matrix_tile.wgsl" import fetch, stage, products, take_scores with context %}
{% include "sdpa/cache_load.wgsl" %}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;        // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k_cache: array<CacheLoad>;  // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read> v_cache: array<CacheLoad>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;  // [S, Hq, D]

struct Params {
  row_count: u32,  // packed rows: S * group
  group_size: u32,
  kv_heads: u32,
  tokens: u32,
  scale: f32,      // of the scores, times log2(e)
}
@group(0) @binding(4) var<uniform> params: Params;
@group(0) @binding(5) var<uniform> input_pos: i32;
{% if int8 %}
@group(0) @binding(6) var<storage, read> k_scales: array<f32>;  // [Cmax, Hkv]
@group(0) @binding(7) var<storage, read> v_scales: array<f32>;
{% endif %}

const LOWEST = -3.0e38;
const RESCALE = 8.0;  // probabilities stay below 2^8

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;
alias Staged = vec{{ unit // 2 }}<u32>;  // {{ unit }} float16

// Every variable is a multiple of 16 bytes: the driver lays them out one behind the other.
// For each part of D [{{ keys }}, {{ unit * kv_row }}]; before the loop they hold rows of Q.
var<workgroup> k_tile: array<array<Staged, {{ keys * kv_row }}>, {{ split }}>;
var<workgroup> v_tile: array<array<Staged, {{ keys * kv_row }}>, {{ split }}>;
var<workgroup> probabilities: array<array<vec4<u32>, {{ 16 * p_row }}>, {{ subgroups }}>;
var<workgroup> scores: array<array<vec4<f32>, {{ 16 * s_row }}>, {{ subgroups }}>;
{% if int8 %}
var<workgroup> k_steps: array<array<f32, {{ keys }}>, 2>;  // of this tile and the next one
{% endif %}
var<workgroup> grown: array<atomic<u32>, 4>;

{% include "sdpa/matrix_halves.wgsl" %}
{% include "sdpa/matrix_stage.wgsl" %}

@compute @workgroup_size({{ lanes }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let kv_head = group.y;
  // The last rows see the most keys: begin with them.
  let first_row = (groups.x - 1u - group.x) * {{ 16 * row_blocks }}u;
  let last_row = min(first_row + {{ 16 * row_blocks - 1 }}u, params.row_count - 1u);
  let position = u32(input_pos);
  let context = position + params.tokens;                      // rows of the cache that hold something
  let columns = position + last_row / params.group_size + 1u;  // that the last row sees
  let heads = params.kv_heads * params.group_size;
  let part = subgroup % {{ split }}u;

  let cache_row = params.kv_heads * {{ row_loads }}u;
  let cache_head = kv_head * {{ row_loads }}u;
  {% for i in range(loads) %}
  let load_row{{ i }} = (index + {{ i * lanes }}u) / {{ row_loads }}u;
  let load_word{{ i }} = (index + {{ i * lanes }}u) % {{ row_loads }}u;
  var k{{ i }}: CacheLoad;
  var v{{ i }}: CacheLoad;
  {% if int8 %}
  var v_step{{ i }}: f32;
  {% endif %}
  {% endfor %}
  {% if int8 %}
  var k_step: f32;
  {% endif %}
  {{ fetch("k", "0u") | indent(2) }}

  {% for d in range(dims) %}
  var q{{ d }}: Left;
  {% if exact %}
  var rest{{ d }}: Left;
  {% endif %}
  var o{{ d }} = Sum(0.0);
  {% endfor %}
  {% include "sdpa/flash_matrix_queries.wgsl" %}

  // A lane has half of a row of scores.
  let row = lane % 16u;
  let side = lane / 16u;
  let packed_row = min(first_row + subgroup / {{ split }}u * 16u + row, params.row_count - 1u);
  let visible = position + packed_row / params.group_size + 1u;
  let my_columns = vec4<u32>(side * {{ keys // 2 }}u) + vec4<u32>(0u, 1u, 2u, 3u);
  let my_scores = row * {{ s_row }}u + side * {{ quads }}u;
  let my_probabilities = row * {{ p_row }}u + side * {{ keys // 16 }}u;
  var largest = LOWEST;
  var total = 0.0;

  {{ stage("k", "0u") | indent(2) }}
  {{ fetch("k", "%du" % keys) | indent(2) }}
  if (index == 0u) {
    atomicStore(&grown[0], 0u);
  }
  workgroupBarrier();
  {
    {% for n in range(0, keys, 16) %}
    var s{{ n }} = Sum(0.0);
    {% endfor %}
    {{ products() | indent(4) }}
  }
  workgroupBarrier();
  {% for j in range(quads) %}
  var score{{ j }}: vec4<f32>;
  {% endfor %}
  {{ take_scores("0u") | indent(2) }}
  {{ stage("k", "1u") | indent(2) }}
  workgroupBarrier();

  for (var start = 0u; start < columns; start += {{ keys }}u) {
    // The next tile's scores, this one's softmax. (Behind the last tile the scores are some numbers that nobody reads.)
    {{ fetch("v", "start") | indent(4) }}
    {% for n in range(0, keys, 16) %}
    var s{{ n }} = Sum(0.0);
    {% endfor %}
    {{ products() | indent(4) }}
    {% include "sdpa/flash_matrix_softmax.wgsl" %}
    {{ stage("v") | indent(4) }}

    if (workgroupUniformLoad(&grown[0]) != 0u) {
      {% include "sdpa/flash_matrix_rescale.wgsl" %}
    }
    if (index == 0u) {
      atomicStore(&grown[0], 0u);
    }

    // This tile's values; the scores of the next one, and the keys of the one after that.
    {{ fetch("k", "start + %du" % (2 * keys)) | indent(4) }}
    let parity = start / {{ keys }}u % 2u;
    {{ take_scores("1u - parity") | indent(4) }}
    {% for n in range(0, keys, 16) %}
    let p{{ n }} = subgroupMatrixLoad<Left, row_major>(&probabilities[subgroup], {{ n // 8 }}u, {{ p_row }}u);
    {% endfor %}
    {% for n in range(0, keys, 16) %}
    {% for first in range(0, dims, 4) %}
    {% for d in range(first, [first + 4, dims] | min) %}
    let value{{ n }}_{{ d }} = subgroupMatrixLoad<Right, row_major>(&v_tile[part], {{ n * kv_row + 16 * d // unit }}u, {{ kv_row }}u);
    {% endfor %}
    {% for d in range(first, [first + 4, dims] | min) %}
    o{{ d }} = subgroupMatrixMultiplyAccumulate(p{{ n }}, value{{ n }}_{{ d }}, o{{ d }});
    {% endfor %}
    {% endfor %}
    {% endfor %}
    {{ stage("k", "parity") | indent(4) }}
    workgroupBarrier();
  }

  {% include "sdpa/flash_matrix_output.wgsl" %}
}
