// Attention of up to {{ rows }} packed rows over one chunk of the context, each subgroup on its own: no barrier until the end.
// The rows of a KV head are its query heads packed by token: row = token * group_size + head.
//
// {{ lanes }} lanes hold a row of the cache, {{ loads }} load(s) of {{ width }} elements each, and a subgroup of {{ subgroup }} reads {{ subgroup // lanes }} of them at a time,
// {{ unroll }} times before it needs the first. Each group of {{ lanes }} lanes has an online softmax of its own: the dot products of
// {{ unroll }} keys x {{ rows }} rows are added up and spread over its lanes at once, then every lane takes the probabilities
// that its part of the values needs. The next keys and values are on their way all the time.
{% if rotation %}
// q and k come without their rotary embedding: the chunks with the new rows write these to the caches first.
{% endif %}
{% set groups = subgroup // lanes %}
{% set quads = width // 4 %}
{% set vectors = quads * loads %}
{% set keys = groups * unroll %}
{% set sums = unroll * rows %}
{# How the sums lie after the exchange: `mine` a lane, the same ones in `spread` lanes; sum u + unroll * r is key u, row r.
   Each lane counts its keys and rows from those that it will have: its sum i is sum i ^ my_first. So what it keeps of an
   exchange, and what it gives away, are the same registers in every lane, and what another lane has is a constant away. #}
{% set mine = [sums // lanes, 1] | max %}
{% set spread = [lanes // sums, 1] | max %}
{% set my_rows = [mine // unroll, 1] | max %}
{% set my_keys = mine // my_rows %}
{% set row_lanes = unroll // my_keys %}
{% macro key(u, tile) %}min(({{ tile }} + first_key) ^ {{ u * groups }}u, count - 1u){% endmacro %}
{# Where rows of K and of V lie: the same place. #}
{% macro places(tile) %}
{% for u in range(unroll) %}
let at{{ u }} = base + {{ key(u, tile) }} * step;
{% endfor %}
{% endmacro %}
{% macro fetch(x, tile) %}
{% for u in range(unroll) %}
{% for l in range(loads) %}
{{ x }}{{ u }}_{{ l }} = {{ x }}_cache[at{{ u }} + place{{ l }}];
{% endfor %}
{% endfor %}
{% if cache == "int8" %}
{% for j in range(my_keys) %}
{{ x }}_scale{{ j }} = {{ x }}_scales[(first + {{ key(j, tile) }}) * params.kv_heads + kv_head];
{% endfor %}
{% endif %}
{% endmacro %}
{# What the lanes that share a row, and nothing else, agree upon. #}
{% macro over_row(name, fold) %}
{% for i in range(6) if 2 ** i < row_lanes %}
{{ name }} = {{ fold | replace("@", "subgroupShuffleXor(%s, %du)" % (name, 2 ** i * spread)) | replace("#", name) }};
{% endfor %}
{% endmacro %}
{# `name` of row r, from the lane of this group that has it. #}
{% macro of_row(name, r) %}subgroupShuffleXor({{ name }}{{ r % my_rows }}, {{ r * unroll // mine * spread }}u){% endmacro %}
{% macro over_groups(name, fold) %}
{% for i in range(6) if lanes * 2 ** i < subgroup %}
{{ name }} = {{ fold | replace("@", "subgroupShuffleXor(%s, %du)" % (name, lanes * 2 ** i)) | replace("#", name) }};
{% endfor %}
{% endmacro %}
{% import "sdpa/query_bytes.wgsl" as query_bytes %}
{% include "sdpa/cache_load.wgsl" %}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;         // [S, Hq, D]
{% set access = "read_write" if rotation else "read" %}
@group(0) @binding(1) var<storage, {{ access }}> k_cache: array<CacheLoad>;  // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, {{ access }}> v_cache: array<CacheLoad>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;   // [S, Hq, D]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;  // [Hkv, rows, splits, D], not normalized
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;  // [Hkv, rows, splits]: maximum, total

struct Params {
  rows: u32,        // packed rows of a KV head, S * group_size
  row_blocks: u32,  // rows / {{ rows }}, rounded up
  group_size: u32,  // Hq / Hkv
  kv_heads: u32,
  chunk: u32,       // columns of a split
  splits: u32,      // that were planned; those behind the context have nothing to do
  scale: f32,       // of the scores
{% if rotation %}
  half_vectors: u32,  // vec4s in a half of what is rotated
{% endif %}
}
@group(0) @binding(6) var<uniform> params: Params;
@group(0) @binding(7) var<uniform> input_pos: i32;
{% if cache == "int8" %}
@group(0) @binding(8) var<storage, {{ access }}> k_scales: array<f32>;  // [Cmax, Hkv]
@group(0) @binding(9) var<storage, {{ access }}> v_scales: array<f32>;
{% endif %}
{% if rotation %}
{% include "sdpa/rotation.wgsl" %}
{% if cache == "int8" %}
{% include "sdpa/int8_codes.wgsl" %}
{% else %}
{% set T = "vec4<f32>" %}
{% include "sdpa/cache_store.wgsl" %}
{% endif %}
{% endif %}

{% if cache == "int8" %}
{{ query_bytes.functions() }}
{%- endif %}
const LOWEST = -3.0e38;
const RESCALE = 6.0;  // probabilities stay below e^6: sums are scaled only when a maximum has grown by more

var<workgroup> parts: array<vec4<f32>, {{ subgroups * rows * units * quads }}>;  // [subgroup, row, D]
var<workgroup> part_stats: array<vec2<f32>, {{ subgroups * rows }}>;             // maximum, total

@compute @workgroup_size({{ subgroup * subgroups }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let kv_head = group.x / params.row_blocks;
  let first_row = group.x % params.row_blocks * {{ rows }}u;
  let last_row = params.rows - 1u;
  let position = u32(input_pos);
  let context = position + min(first_row + {{ rows - 1 }}u, last_row) / params.group_size + 1u;
  let first = group.y * params.chunk;
  if (first >= context) {
    return;
  }
  let count = min(params.chunk, context - first);
  {% if rotation %}
  {% include "sdpa/rotation_store.wgsl" %}
  {% endif %}

  let unit = lane % {{ lanes }}u;
  let my_first = unit / {{ spread }}u * {{ mine }}u;
  let my_row = my_first / {{ unroll }}u;
  let first_key = subgroup * {{ keys }}u + lane / {{ lanes }}u + my_first % {{ unroll }}u * {{ groups }}u;
  let base = (first * params.kv_heads + kv_head) * {{ units }}u;
  let step = params.kv_heads * {{ units }}u;
  {% for l in range(loads) %}
  let place{{ l }} = min(unit + {{ l * lanes }}u, {{ units - 1 }}u);
  {% endfor %}
  {% for x in "kv" %}
  {% for u in range(unroll) %}
  {% for l in range(loads) %}
  var {{ x }}{{ u }}_{{ l }}: CacheLoad;
  {% endfor %}
  {% endfor %}
  {% if cache == "int8" %}
  {% for j in range(my_keys) %}
  var {{ x }}_scale{{ j }}: f32;
  {% endfor %}
  {% endif %}
  {% endfor %}
  {
    {{ places("0u") | indent(4) }}
    {{ fetch("k", "0u") | indent(4) }}
    {{ fetch("v", "0u") | indent(4) }}
  }

  {% include "sdpa/flash_decode_subgroups_queries.wgsl" %}

  {% for a in range(my_rows) %}
  let visible{{ a }} = min(count, max(position + row{{ a }} / params.group_size + 1u, first) - first);
  var largest{{ a }} = LOWEST;
  var total{{ a }} = 0.0;
  {% endfor %}

  for (var tile = 0u; tile < count; tile += {{ subgroups * keys }}u) {
    {% include "sdpa/flash_decode_subgroups_step.wgsl" %}
  }

  {% include "sdpa/flash_decode_subgroups_output.wgsl" %}
}
