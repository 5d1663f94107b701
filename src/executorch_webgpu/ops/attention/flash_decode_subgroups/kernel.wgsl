{#
Attention of up to ROWS packed rows, which are queries of up to 8 new tokens, over one split of the context. Subgroups
work independently: the loop over the context has no barrier.

A group of LANES lanes holds one row of the cache, and the GROUPS groups of a subgroup read one each at a time, UNROLL
times before they need the first. Each group has an online softmax of its own: the dot products of UNROLL keys x ROWS
packed rows (see wgsl/packed_rows) are added up and spread over its lanes at once, then every lane takes the probabilities
that its part of the values needs. The next keys and values are on their way all the time. With a rotation, the splits
with the new rows write these to the caches first. attention/merge_splits puts splits together, if there are several.

Inputs:
  subgroup = 32 | 8 | 64: invocations of a subgroup
  subgroups = 4 | 2: subgroups of a workgroup
  rows = 2 | 1 | 4 | 8: packed rows of a workgroup, a power of two
  width = 4 | 8 | 16: elements of a load, at most 16 bytes
  units = 16 | 12: loads in a head
  loads = 2 | 1: loads of a head by each lane
  lanes = 8 | 16: lanes that hold one row of the cache, a power of two
  unroll = 4 | 2 | 8: keys that a group loads before it uses the first, a power of two
  cache = "int8" | "float16" | "float32": dtype of both caches
  rotation = "" | "pairs" | "halves": whether q and k are rotated here, and which elements rotate together
  paged = False | True: workgroups have rows of one token each, whose cache lies in pages
  together = False | True: keys that a subgroup reads at a time lie in one page
  listed = False | True: whether workgroups take the tokens of a list, not all
#}
{% set quads = width // 4 %}
{% set vectors = quads * loads %}
{% set int8 = cache == "int8" %}
{% set exchanges = [1, 2, 4, 8, 16, 32, 64] | select("lt", lanes) | list %}
{% set end = exchanges | length %}
{# How a group's sums lie after the exchange: `mine` a lane, the same ones in `spread` lanes; sum u + unroll * r is that
   of key u and row r. Each lane counts its keys and rows from those that it will have: its sum i is sum i ^ my_first.
   So what it keeps of an exchange, and what it gives away, are the same registers in every lane, and what another lane
   has is a constant away. #}
{% set sums = unroll * rows %}
{% set mine = [sums // lanes, 1] | max %}
{% set spread = [lanes // sums, 1] | max %}
{% set my_rows = [mine // unroll, 1] | max %}
{% set my_keys = mine // my_rows %}
{% set row_lanes = unroll // my_keys %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/packed_rows.wgsl" %}
{% if paged %}{% include "attention/row_places.wgsl" %}{% include "wgsl/pages.wgsl" %}{% endif %}
{% include "wgsl/query_bytes.wgsl" %}
{% include "wgsl/rotation.wgsl" %}

{% set access, entry = "read_write" if rotation else "read", "vec4<f32>" if rotation == "halves" else "vec2<f32>" %}
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;                // [S, Hq, D]
@group(0) @binding(1) var<storage, {{ access }}> k_cache: array<CacheLoad>;  // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, {{ access }}> v_cache: array<CacheLoad>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;        // [S, Hq, D]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;       // [Hkv, rows, splits, D], not normalized
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;      // [Hkv, rows, splits]: maximum, total
{% if int8 %}
@group(0) @binding(8) var<storage, {{ access }}> k_scales: array<f32>;       // [Cmax, Hkv]
@group(0) @binding(9) var<storage, {{ access }}> v_scales: array<f32>;
{% endif %}
{% if rotation %}
@group(0) @binding(10) var<storage, read> k: array<vec4<f32>>;               // [S, Hkv, D], not rotated, like q
@group(0) @binding(11) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(12) var<storage, read> cos_table: array<{{ entry }}>;     // [rows, D / 2], or [rows, 8 * half_vectors]
@group(0) @binding(13) var<storage, read> sin_table: array<{{ entry }}>;
{% if not paged %}
@group(0) @binding(14) var<storage, read_write> rotated_q: array<vec4<f32>>;  // [S, Hq, D]
@group(0) @binding(15) var<uniform> start_pos: i32;  // the row of the tables that the first token takes
{% endif %}{% endif %}

struct Params {
  rows: u32,        // packed rows of a KV head, S * group_size
  row_blocks: u32,  // rows / ROWS, rounded up
  group_size: u32,  // Hq / Hkv
  kv_heads: u32,
  chunk: u32,       // columns of a split
  splits: u32,      // planned ones; those past the context have nothing to do
  scale: f32,       // of the scores
  half_vectors: u32,  // vec4s in a half of what is rotated by halves
  {% if paged %}
  first_token: u32,      // of those that this dispatch attends with
  blocks_of_token: u32,  // of ROWS packed rows each
  table_width: u32,      // pages that a sequence may have
  page_shift: u32,
  {% endif %}
}
@group(0) @binding(6) var<uniform> params: Params;
{% if not paged %}@group(0) @binding(7) var<uniform> input_pos: i32;{% endif %}

const SUBGROUP = {{ subgroup }}u;
const SUBGROUPS = {{ subgroups }}u;
const LANES = {{ lanes }}u;
const GROUPS = SUBGROUP / LANES;
const UNROLL = {{ unroll }}u;
const GROUP_KEYS = GROUPS * UNROLL;  // of a subgroup at a time
const STEP_KEYS = SUBGROUPS * GROUP_KEYS;
const ROWS = {{ rows }}u;
const QUADS = {{ quads }}u;  // vec4s of a load
const UNITS = {{ units }}u;
const VECTORS = UNITS * QUADS;  // of a head
const RESCALE = 6.0;  // probabilities stay below e^6: sums are scaled only when a maximum has grown by more

var<workgroup> parts: array<vec4<f32>, SUBGROUPS * ROWS * VECTORS>;  // [subgroup, row, D]
var<workgroup> part_stats: array<vec2<f32>, SUBGROUPS * ROWS>;       // maximum, total

// ---- what lanes agree upon ----
{% set row, groups = (spread, spread * row_lanes), (lanes, subgroup) %}
{% for name, T, span in (("row", "f32", row), ("groups", "f32", groups), ("groups4", "vec4<f32>", groups)) %}
{% for kind, both in (("max", "max(x, y)"), ("sum", "x + y")) %}
fn {{ kind }}_of_{{ name }}(own: {{ T }}) -> {{ T }} {
  var x = own;
  {% for bit in [1, 2, 4, 8, 16, 32, 64] if span[0] <= bit < span[1] %}
  x = {{ both | replace("y", "subgroupShuffleXor(x, %du)" % bit) }};
  {% endfor %}
  return x;
}

{% endfor %}{% endfor %}
{% if rotation %}
// ---- rotary embedding: vector i of the head that begins at vector `at`, by a row of the tables ----
{% for x, name in (("q", "rotated_query"), ("k", "new_k")) %}
fn {{ name }}(at: u32, i: u32, row: u32) -> vec4<f32> {
  let own = {{ x }}[at + i];
  {% if rotation == "halves" %}
  let half = params.half_vectors;
  if (i >= 2u * half) {
    return own;
  }
  let angle = row * 2u * half + i;
  let other = {{ x }}[at + partner(i, half)] * partner_sign(i, half);
  return own * cos_table[angle] + other * sin_table[angle];
  {% else %}
  let cosines = cos_table[row * VECTORS + i];
  let sines = sin_table[row * VECTORS + i];
  return vec4<f32>(
    rotated_pair(own.xy, cosines.xx, sines.xx), rotated_pair(own.zw, cosines.yy, sines.yy));
  {% endif %}
}

{% endfor %}
{% endif %}
{# Where rows of K and V lie, from key `next` of this lane on. Rows past the split are read as its last one. Their pages
   have been looked up by then; those of the keys after them are looked up here. #}
{% set pages = (1 if together else unroll) if paged else 0 %}
{% macro places_of_keys() %}
{% for u in range(unroll) %}
{% set row = "first + min(next ^ (%du * GROUPS), count - 1u)" % u %}
{% set page = "page%d" % (0 if together else u) %}
let cached{{ u }} = {{ "row_of_page(%s, %s, params.page_shift)" % (page, row) if paged else row }};
let at{{ u }} = base + cached{{ u }} * step;
{% endfor %}
{{ look_up("next + STEP_KEYS") }}
{% endmacro %}
{% macro look_up(key) %}
{% for u in range(pages) %}
page{{ u }} = block_tables[table + ((first + min(({{ key }}) ^ ({{ u }}u * GROUPS), count - 1u)) >> params.page_shift)];
{% endfor %}
{% endmacro %}
{% macro load(x) %}
{% for u in range(unroll) %}{% for l in range(loads) %}
{{ x }}{{ u }}_{{ l }} = {{ x }}_cache[at{{ u }} + place{{ l }}];
{% endfor %}{% endfor %}
{% for j in range(my_keys) if int8 %}
{{ x }}_scale{{ j }} = {{ x }}_scales[cached{{ j }} * params.kv_heads + kv_head];
{% endfor %}
{% endmacro %}
@compute @workgroup_size(SUBGROUP * SUBGROUPS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let kv_head = group.x / params.row_blocks;
  let block = group.x % params.row_blocks;
  {% if paged %}
  let slot = block / params.blocks_of_token;  // among the tokens of this dispatch
  let place = row_place(params.first_token + slot);
  let table = place.sequence * params.table_width;
  let first_token = place.row;
  let position = place.position;
  let angles = position;  // the row of the tables that the first token takes
  let first_row = block % params.blocks_of_token * ROWS;
  let last_row = params.group_size - 1u;
  {% else %}
  let slot = 0u;
  let first_token = 0u;
  let position = u32(input_pos);
  let angles = {{ "u32(start_pos)" if rotation else "0u" }};
  let first_row = block * ROWS;
  let last_row = params.rows - 1u;
  {% endif %}
  let rows_before = first_token * params.group_size;
  let context = position + min(first_row + ROWS - 1u, last_row) / params.group_size + 1u;
  let is_whole = {{ "context <= params.chunk" if paged else "params.splits == 1u" }};
  let first = group.y * params.chunk;
  if (first >= context) {
    return;
  }
  let count = min(params.chunk, context - first);

  {% if rotation %}
  // ---- the split's new rows of the caches, a subgroup each: no other workgroup reads them in this dispatch ----
  if (first + count > position) {
    let end = first + count;
    for (var begin = max(position, first); begin < end; begin += SUBGROUPS) {
      let column = min(begin + subgroup, end - 1u);
      let angle = angles + column - position;
      let source = ((first_token + column - position) * params.kv_heads + kv_head) * VECTORS;
      let cached = {{ "pool_row(table, column, params.page_shift)" if paged else "column" }};
      let to = cached * params.kv_heads + kv_head;
      {% for x in ("k", "v") %}{% if int8 %}
      var {{ x }}_largest = 0.0;
      for (var i = lane; i < VECTORS; i += SUBGROUP) {
        let four = {{ "new_k(source, i, angle)" if x == "k" else "v[source + i]" }};
        {{ x }}_largest = max({{ x }}_largest, largest_of(four));
      }
      let {{ x }}_scale = int8_scale(subgroupMax({{ x }}_largest));
      let {{ x }}_divisor = int8_divisor({{ x }}_scale);
      if (lane == 0u) {
        {{ x }}_scales[to] = {{ x }}_scale;
      }
      {% else %}
      let {{ x }}_divisor = 1.0;
      {% endif %}{% endfor %}
      for (var u = lane; u < UNITS; u += SUBGROUP) {
        k_cache[to * UNITS + u] = CacheLoad(
          {% for e in range(quads) %}
          stored(new_k(source, u * QUADS + {{ e }}u, angle) / k_divisor),
          {% endfor %});
        v_cache[to * UNITS + u] = CacheLoad(
          {% for e in range(quads) %}
          stored(v[source + u * QUADS + {{ e }}u] / v_divisor),
          {% endfor %});
      }
    }
    storageBarrier();
  }

  {% endif %}
  // ---- the first keys and values ----
  let unit = lane % LANES;
  let my_first = unit / {{ spread }}u * {{ mine }}u;  // of the sums
  let my_row = my_first / UNROLL;
  let my_key = subgroup * GROUP_KEYS + lane / LANES + my_first % UNROLL * GROUPS;
  let base = kv_head * UNITS;
  let step = params.kv_heads * UNITS;
  {% for l in range(loads) %}
  let place{{ l }} = min(unit + {{ l }}u * LANES, UNITS - 1u);
  {% endfor %}
  {% for x in ("k", "v") %}{% for u in range(unroll) %}{% for l in range(loads) %}
  var {{ x }}{{ u }}_{{ l }}: CacheLoad;
  {% endfor %}{% endfor %}
  {% for j in range(my_keys) %}
  var {{ x }}_scale{{ j }}: f32;  // of int8 caches
  {% endfor %}{% endfor %}
  {% for u in range(pages) %}
  var page{{ u }}: i32;
  {% endfor %}
  {
    let next = my_key;
    {{ look_up("next") | indent(4) }}
    {{ places_of_keys() | indent(4) }}
    {{ load("k") | indent(4) }}
    {{ load("v") | indent(4) }}
  }

  // ---- the queries of this lane's rows, times the scale of the scores ----
  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + (my_row ^ {{ r }}u), last_row);
  let q{{ r }} = query_head(rows_before + row{{ r }}, kv_head, params.kv_heads, params.group_size) * VECTORS;
  {% for e in range(vectors) %}{% set l = e // quads %}
  let i{{ r }}_{{ e }} = place{{ l }} * QUADS + {{ e % quads }}u;
  {% if rotation %}
  let query{{ r }}_{{ e }} = rotated_query(q{{ r }}, i{{ r }}_{{ e }}, angles + row{{ r }} / params.group_size);
  {% if not paged %}
  if (group.y == 0u && subgroup == 0u && lane < LANES) {
    rotated_q[q{{ r }} + i{{ r }}_{{ e }}] = query{{ r }}_{{ e }};
  }
  {% endif %}{% else %}
  let query{{ r }}_{{ e }} = q[q{{ r }} + i{{ r }}_{{ e }}];
  {% endif %}
  let q{{ r }}_{{ e }} = select(vec4<f32>(), params.scale * query{{ r }}_{{ e }}, unit + {{ l }}u * LANES < UNITS);
  var o{{ r }}_{{ e }} = vec4<f32>();
  {% endfor %}{% endfor %}
  {% if int8 %}
  // As integers of three bytes. All lanes of a packed row share one step of quantization. Lanes number rows from their own,
  // so what this lane calls row r another lane calls r ^ distance.
  {% for r in range(rows) %}
  var largest{{ r }}_0 = 0.0;
  var bits{{ r }}_0 = 0u;
  {% for e in range(vectors) %}
  largest{{ r }}_0 = max(largest{{ r }}_0, largest_of(q{{ r }}_{{ e }}));
  bits{{ r }}_0 = max(bits{{ r }}_0, exponent_bits(q{{ r }}_{{ e }}));
  {% endfor %}{% endfor %}
  {% for bit in exchanges %}
  {% set i, n, distance = loop.index0, loop.index, bit // spread * mine // unroll %}
  {% for r in range(rows) %}
  {% set other = r + distance if distance and r // distance % 2 == 0 else r - distance %}
  let largest{{ r }}_{{ n }} = max(largest{{ r }}_{{ i }}, subgroupShuffleXor(largest{{ other }}_{{ i }}, {{ bit }}u));
  let bits{{ r }}_{{ n }} = max(bits{{ r }}_{{ i }}, subgroupShuffleXor(bits{{ other }}_{{ i }}, {{ bit }}u));
  {% endfor %}{% endfor %}
  {% for r in range(rows) %}
  let step{{ r }} = query_step(largest{{ r }}_{{ end }}, bits{{ r }}_{{ end }});
  {% for e in range(vectors) %}
  let bytes{{ r }}_{{ e }} = query_bytes(q{{ r }}_{{ e }}, step{{ r }});
  {% endfor %}{% endfor %}{% endif %}
  {% for a in range(my_rows) %}
  let visible{{ a }} = min(count, max(position + row{{ a }} / params.group_size + 1u, first) - first);
  var largest{{ a }} = LOWEST;
  var total{{ a }} = 0.0;
  {% endfor %}

  for (var tile = 0u; tile < count; tile += STEP_KEYS) {
    // ---- parts of the dot products, one after the other in the order of the sums ----
    {% for u in range(unroll) %}
    {% if int8 %}{% for r in range(rows) %}
    var dots{{ u }}_{{ r }} = vec3<i32>();
    {% for e in range(vectors) %}
    dots{{ u }}_{{ r }} += query_dot(bytes{{ r }}_{{ e }}, cache_four{{ e % quads }}(k{{ u }}_{{ e // quads }}));
    {% endfor %}
    var s{{ r * unroll + u }} = query_sum(dots{{ u }}_{{ r }});
    {% endfor %}
    {% else %}{% for e in range(vectors) %}
    let key{{ u }}_{{ e }} = cache_quad{{ e % quads }}(k{{ u }}_{{ e // quads }});
    {% endfor %}
    {% for r in range(rows) %}
    var s{{ r * unroll + u }} = dot(q{{ r }}_0, key{{ u }}_0);
    {% for e in range(1, vectors) %}
    s{{ r * unroll + u }} += dot(q{{ r }}_{{ e }}, key{{ u }}_{{ e }});
    {% endfor %}{% endfor %}{% endif %}{% endfor %}
    {% for j in range(my_keys) if int8 %}
    let score_scale{{ j }} = k_scale{{ j }};
    let weight_scale{{ j }} = v_scale{{ j }};
    {% endfor %}
    let next = tile + STEP_KEYS + my_key;
    {{ places_of_keys() | indent(4) }}
    {{ load("k") | indent(4) }}

    // ---- each exchange adds up pairs of lanes and halves what a lane has to keep ----
    {% set left = namespace(n=sums) %}
    {% for distance in exchanges | reverse %}
    {% if left.n > 1 %}{% set left.n = left.n // 2 %}
    {% for j in range(left.n) %}
    s{{ j }} += subgroupShuffleXor(s{{ j + left.n }}, {{ distance }}u);
    {% endfor %}
    {% else %}
    s0 += subgroupShuffleXor(s0, {{ distance }}u);
    {% endif %}{% endfor %}

    // ---- online softmax of this lane's rows and keys ----
    {% for a in range(my_rows) %}{% for j in range(my_keys) %}{% set i = a * my_keys + j %}
    let seen{{ i }} = ((tile + my_key) ^ ({{ j }}u * GROUPS)) < visible{{ a }};
    {% if int8 %}s{{ i }} *= score_scale{{ j }} * step{{ a }};{% endif %}
    s{{ i }} = select(LOWEST, s{{ i }}, seen{{ i }});
    {% endfor %}
    var most{{ a }} = s{{ a * my_keys }};
    {% for j in range(1, my_keys) %}
    most{{ a }} = max(most{{ a }}, s{{ a * my_keys + j }});
    {% endfor %}
    let top{{ a }} = max_of_row(most{{ a }});
    let before{{ a }} = largest{{ a }};
    largest{{ a }} = select(before{{ a }}, top{{ a }}, top{{ a }} > before{{ a }} + RESCALE);
    let factor{{ a }} = exp(max(before{{ a }} - largest{{ a }}, -100.0));
    total{{ a }} *= factor{{ a }};
    {% for j in range(my_keys) %}{% set i = a * my_keys + j %}
    var p{{ i }} = select(0.0, exp(s{{ i }} - largest{{ a }}), seen{{ i }});
    total{{ a }} += p{{ i }};
    {% if int8 %}p{{ i }} *= weight_scale{{ j }};{% endif %}
    {% endfor %}{% endfor %}
    {% for r in range(rows) %}
    let factor_of{{ r }} = subgroupShuffleXor(factor{{ r % my_rows }}, {{ r * unroll // mine * spread }}u);
    if (factor_of{{ r }} != 1.0) {
      {% for e in range(vectors) %}
      o{{ r }}_{{ e }} *= factor_of{{ r }};
      {% endfor %}
    }
    {% endfor %}

    // ---- weighted sums of the values ----
    {% for u in range(unroll) %}{% for e in range(vectors) %}
    let value{{ u }}_{{ e }} = cache_quad{{ e % quads }}(v{{ u }}_{{ e // quads }});
    {% endfor %}
    {% for r in range(rows) %}{% set sum = r * unroll + u %}
    let weight{{ u }}_{{ r }} = subgroupShuffleXor(p{{ sum % mine }}, {{ sum // mine * spread }}u);
    {% for e in range(vectors) %}
    o{{ r }}_{{ e }} += weight{{ u }}_{{ r }} * value{{ u }}_{{ e }};
    {% endfor %}{% endfor %}{% endfor %}
    {{ load("v") | indent(4) }}
  }

  // ---- the groups of a subgroup are put together in its lanes ----
  {% for a in range(my_rows) %}
  total{{ a }} = sum_of_row(total{{ a }});
  {% endfor %}
  {% for r in range(rows) %}
  {
    let largest = subgroupShuffleXor(largest{{ r % my_rows }}, {{ r * unroll // mine * spread }}u);
    let total = subgroupShuffleXor(total{{ r % my_rows }}, {{ r * unroll // mine * spread }}u);
    let most = max_of_groups(largest);
    let factor = exp(max(largest - most, -100.0));
    let all = sum_of_groups(factor * total);
    {% for e in range(vectors) %}
    o{{ r }}_{{ e }} = sum_of_groups4(o{{ r }}_{{ e }} * factor);
    {% endfor %}
    if (lane < LANES) {
      let at = (subgroup * ROWS + (my_row ^ {{ r }}u)) * VECTORS;
      {% for e in range(vectors) %}{% set l = e // quads %}
      if (unit + {{ l }}u * LANES < UNITS) {
        parts[at + place{{ l }} * QUADS + {{ e % quads }}u] = o{{ r }}_{{ e }};
      }
      {% endfor %}
    }
    if (lane == 0u) {
      part_stats[subgroup * ROWS + {{ r }}u] = vec2<f32>(most, all);
    }
  }
  {% endfor %}
  workgroupBarrier();

  // ---- the subgroups in workgroup memory ----
  for (var i = index; i < ROWS * VECTORS; i += SUBGROUP * SUBGROUPS) {
    let row = i / VECTORS;
    let vector = i % VECTORS;
    var most = LOWEST;
    for (var s = 0u; s < SUBGROUPS; s++) {
      most = max(most, part_stats[s * ROWS + row].x);
    }
    var all = 0.0;
    var sum = vec4<f32>();
    for (var s = 0u; s < SUBGROUPS; s++) {
      let stat = part_stats[s * ROWS + row];
      let factor = exp(max(stat.x - most, -100.0));
      all += factor * stat.y;
      sum += factor * parts[s * ROWS * VECTORS + i];
    }
    let packed_row = first_row + row;
    if (packed_row <= last_row) {
      if (is_whole) {
        let head = query_head(rows_before + packed_row, kv_head, params.kv_heads, params.group_size);
        out[head * VECTORS + vector] = sum / all;
      } else {
        let at = (kv_head * params.rows + slot * params.group_size + packed_row) * params.splits + group.y;
        sums[at * VECTORS + vector] = sum;
        if (vector == 0u) {
          stats[at] = vec2<f32>(most, all);
        }
      }
    }
  }
}
