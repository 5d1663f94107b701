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
{% import "wgsl/query_bytes.wgsl" as query_bytes %}
{% include "wgsl/kv_cache.wgsl" %}

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
{% set halves = rotation == "halves" %}
// Rotary embedding of four elements of a head. A pair is {{ "half of what is rotated apart" if halves else "two neighbours" }}.
@group(0) @binding(10) var<storage, read> k: array<vec4<f32>>;  // [S, Hkv, D], not rotated, like q
@group(0) @binding(11) var<storage, read> v: array<vec4<f32>>;
{% if halves %}
@group(0) @binding(12) var<storage, read> cos_table: array<vec4<f32>>;  // [rows, 8 * half_vectors]
@group(0) @binding(13) var<storage, read> sin_table: array<vec4<f32>>;
{% else %}
@group(0) @binding(12) var<storage, read> cos_table: array<vec2<f32>>;  // [rows, D / 2]
@group(0) @binding(13) var<storage, read> sin_table: array<vec2<f32>>;
{% endif %}
@group(0) @binding(14) var<storage, read_write> rotated_q: array<vec4<f32>>;  // [S, Hq, D], the rotated q
@group(0) @binding(15) var<uniform> start_pos: i32;  // the row of the tables that the first token takes

{% for x in ("q", "k") %}
// Vector i of the head of {{ x }} that begins at vector `at`.
fn rotate_{{ x }}(at: u32, i: u32, token: u32) -> vec4<f32> {
  let own = {{ x }}[at + i];
  let row = u32(start_pos) + token;
  {% if halves %}
  let half = params.half_vectors;
  if (i >= 2u * half) {
    return own;
  }
  let angle = row * 2u * half + i;
  let other = {{ x }}[at + select(i - half, i + half, i < half)] * select(1.0, -1.0, i < half);
  return own * cos_table[angle] + other * sin_table[angle];
  {% else %}
  let angle = row * {{ units * quads }}u + i;
  let other = vec4<f32>(-own.y, own.x, -own.w, own.z);
  return own * cos_table[angle].xxyy + other * sin_table[angle].xxyy;
  {% endif %}
}

{% endfor %}
{% if cache == "int8" %}
{% include "wgsl/int8_codes.wgsl" %}
{% else %}
{% set T = "vec4<f32>" %}
{% include "wgsl/cache_store.wgsl" %}
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
  {% macro new_parts(x) %}{% for e in range(quads) %}{{ ", " if e }}new_{{ x }}{{ e }}{% endfor %}{% endmacro %}
  // The chunk's new rows of the caches, a subgroup each: nobody else reads them in this dispatch.
  if (first + count > position) {
    let end = first + count;
    for (var begin = max(position, first); begin < end; begin += {{ subgroups }}u) {
      let column = min(begin + subgroup, end - 1u);
      let token = column - position;
      let given = (token * params.kv_heads + kv_head) * {{ units * quads }}u;
      let place = (column * params.kv_heads + kv_head) * {{ units }}u;
      {% if cache == "int8" %}
      {% for x, element in (("k", "rotate_k(given, i, token)"), ("v", "v[given + i]")) %}
      var {{ x }}_largest = 0.0;
      for (var i = lane; i < {{ units * quads }}u; i += {{ subgroup }}u) {
        {{ x }}_largest = max({{ x }}_largest, largest_of({{ element }}));
      }
      let {{ x }}_scale = int8_scale(subgroupMax({{ x }}_largest));
      let {{ x }}_divisor = int8_divisor({{ x }}_scale);
      if (lane == 0u) {
        {{ x }}_scales[column * params.kv_heads + kv_head] = {{ x }}_scale;
      }
      {% endfor %}
      {% endif %}
      for (var u = lane; u < {{ units }}u; u += {{ subgroup }}u) {
        {% for e in range(quads) %}
        let i{{ e }} = u * {{ quads }}u + {{ e }}u;
        {% if cache == "int8" %}
        let new_k{{ e }} = int8_codes(rotate_k(given, i{{ e }}, token) / k_divisor);
        let new_v{{ e }} = int8_codes(v[given + i{{ e }}] / v_divisor);
        {% else %}
        let new_k{{ e }} = store(rotate_k(given, i{{ e }}, token));
        let new_v{{ e }} = store(v[given + i{{ e }}]);
        {% endif %}
        {% endfor %}
        {% for x in "kv" %}
        {{ x }}_cache[place + u] = {{ "new_%s0" % x if quads == 1 else "CacheLoad(%s)" % new_parts(x) }};
        {% endfor %}
      }
    }
    storageBarrier();
  }
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

  // The queries of this lane's rows, {{ "rotated and " if rotation }}times the scale of the scores; against int8 codes as integers of three bytes.
  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + (my_row ^ {{ r }}u), last_row);
  let q{{ r }} = ((row{{ r }} / params.group_size * params.kv_heads + kv_head) * params.group_size
    + row{{ r }} % params.group_size) * {{ units * quads }}u;
  {% for e in range(vectors) %}
  {% set l = e // quads %}
  {% set i = "place%d * %du + %du" % (l, quads, e % quads) %}
  {% if rotation %}
  let rotated_q{{ r }}_{{ e }} = rotate_q(q{{ r }}, {{ i }}, row{{ r }} / params.group_size);
  if (group.y == 0u && subgroup == 0u && lane < {{ lanes }}u) {
    rotated_q[q{{ r }} + {{ i }}] = rotated_q{{ r }}_{{ e }};
  }
  {% endif %}
  let q{{ r }}_{{ e }} = select(
    vec4<f32>(), params.scale * {{ "rotated_q%d_%d" % (r, e) if rotation else "q[q%d + %s]" % (r, i) }}, unit + {{ l * lanes }}u < {{ units }}u);
  var o{{ r }}_{{ e }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  {% if cache == "int8" %}
  {% for r in range(rows) %}
  {{ query_bytes.extremes(r, vectors, "largest0_%d" % r, "infinite0_%d" % r) | indent(2) }}
  {% endfor %}
  {# Over all lanes of a row, which another lane may count as another one. #}
  {% set last = namespace(n=0) %}
  {% for i in range(6) if 2 ** i < lanes %}
  {% set distance = 2 ** i // spread * mine // unroll %}
  {% for r in range(rows) %}
  {% set theirs = "%d_%d" % (i, r + distance if distance and r // distance % 2 == 0 else r - distance) %}
  let largest{{ i + 1 }}_{{ r }} = max(largest{{ i }}_{{ r }}, subgroupShuffleXor(largest{{ theirs }}, {{ 2 ** i }}u));
  let infinite{{ i + 1 }}_{{ r }} = max(infinite{{ i }}_{{ r }}, subgroupShuffleXor(infinite{{ theirs }}, {{ 2 ** i }}u));
  {% endfor %}
  {% set last.n = i + 1 %}
  {% endfor %}
  {% for r in range(rows) %}
  {{ query_bytes.bytes(r, vectors, "largest%d_%d" % (last.n, r), "infinite%d_%d" % (last.n, r)) | indent(2) }}
  {% endfor %}
  {% endif %}

  {% for a in range(my_rows) %}
  let visible{{ a }} = min(count, max(position + row{{ a }} / params.group_size + 1u, first) - first);
  var largest{{ a }} = LOWEST;
  var total{{ a }} = 0.0;
  {% endfor %}

  for (var tile = 0u; tile < count; tile += {{ subgroups * keys }}u) {
{% macro key_words(u) %}{% for e in range(vectors) %}{{ "," if e }}k{{ u }}_{{ e // quads }}{{ "[%d]" % (e % quads) if quads > 1 }}{% endfor %}{% endmacro %}
    // Parts of the dot products, one after the other in the order of the sums.
    {% for u in range(unroll) %}
    {% if cache == "int8" %}
    {% for r in range(rows) %}
    var s{{ r * unroll + u }} = {{ query_bytes.dot(r, key_words(u).split(",")) }};
    {% endfor %}
    {% else %}
    {% for e in range(vectors) %}
    let key{{ u }}_{{ e }} = cache_quad{{ e % quads }}(k{{ u }}_{{ e // quads }});
    {% endfor %}
    {% for r in range(rows) %}
    var s{{ r * unroll + u }} = {% for e in range(vectors) %}{{ " + " if e }}dot(q{{ r }}_{{ e }}, key{{ u }}_{{ e }}){% endfor %};
    {% endfor %}
    {% endif %}
    {% endfor %}
    {% if cache == "int8" %}
    {% for j in range(my_keys) %}
    let score_scale{{ j }} = k_scale{{ j }};
    let weight_scale{{ j }} = v_scale{{ j }};
    {% endfor %}
    {% endif %}
    {{ places("tile + %du" % (subgroups * keys)) | indent(4) }}
    {{ fetch("k", "tile + %du" % (subgroups * keys)) | indent(4) }}

    // Each exchange adds up pairs of lanes and halves what a lane has to keep.
    {% set left = namespace(n=sums) %}
    {% for i in range(6) if 2 ** i < lanes %}
    {% set offset = lanes // 2 ** (i + 1) %}
    {% if left.n > 1 %}
    {% set left.n = left.n // 2 %}
    {% for j in range(left.n) %}
    s{{ j }} += subgroupShuffleXor(s{{ j + left.n }}, {{ offset }}u);
    {% endfor %}
    {% else %}
    s0 += subgroupShuffleXor(s0, {{ offset }}u);
    {% endif %}
    {% endfor %}

    {% for a in range(my_rows) %}
    {% for j in range(my_keys) %}
    {% set s = "s%d" % (a * my_keys + j) %}
    let seen{{ a }}_{{ j }} = ((tile + first_key) ^ {{ j * groups }}u) < visible{{ a }};
    {{ s }} = select(LOWEST, {{ s }}{{ " * (score_scale%d * step%d)" % (j, a) if cache == "int8" }}, seen{{ a }}_{{ j }});
    {% endfor %}
    var top{{ a }} = s{{ a * my_keys }};
    {% for j in range(1, my_keys) %}
    top{{ a }} = max(top{{ a }}, s{{ a * my_keys + j }});
    {% endfor %}
    {{ over_row("top%d" % a, "max(#, @)") | indent(4) }}
    let before{{ a }} = largest{{ a }};
    largest{{ a }} = select(before{{ a }}, top{{ a }}, top{{ a }} > before{{ a }} + RESCALE);
    let factor{{ a }} = exp(max(before{{ a }} - largest{{ a }}, -100.0));
    total{{ a }} *= factor{{ a }};
    {% for j in range(my_keys) %}
    {% set p = "p%d" % (a * my_keys + j) %}
    var {{ p }} = select(0.0, exp(s{{ a * my_keys + j }} - largest{{ a }}), seen{{ a }}_{{ j }});
    total{{ a }} += {{ p }};
    {% if cache == "int8" %}
    {{ p }} *= weight_scale{{ j }};
    {% endif %}
    {% endfor %}
    {% endfor %}
    {% for r in range(rows) %}
    let factor_of{{ r }} = {{ of_row("factor", r) }};
    if (factor_of{{ r }} != 1.0) {
      {% for e in range(vectors) %}
      o{{ r }}_{{ e }} *= factor_of{{ r }};
      {% endfor %}
    }
    {% endfor %}

    {% for u in range(unroll) %}
    {% for e in range(vectors) %}
    let value{{ u }}_{{ e }} = cache_quad{{ e % quads }}(v{{ u }}_{{ e // quads }});
    {% endfor %}
    {% for r in range(rows) %}
    {% set sum = r * unroll + u %}
    let weight{{ u }}_{{ r }} = subgroupShuffleXor(p{{ sum % mine }}, {{ sum // mine * spread }}u);
    {% for e in range(vectors) %}
    o{{ r }}_{{ e }} += weight{{ u }}_{{ r }} * value{{ u }}_{{ e }};
    {% endfor %}
    {% endfor %}
    {% endfor %}
    {{ fetch("v", "tile + %du" % (subgroups * keys)) | indent(4) }}
  }

  // The groups of a subgroup are put together in its lanes, the subgroups in workgroup memory.
  {% for a in range(my_rows) %}
  {{ over_row("total%d" % a, "# + @") | indent(2) }}
  {% endfor %}
  {% for r in range(rows) %}
  {
    let of_group = {{ of_row("largest", r) }};
    var most = of_group;
    {{ over_groups("most", "max(#, @)") | indent(4) }}
    let factor = exp(max(of_group - most, -100.0));
    var all = factor * {{ of_row("total", r) }};
    {{ over_groups("all", "# + @") | indent(4) }}
    {% for e in range(vectors) %}
    o{{ r }}_{{ e }} *= factor;
    {{ over_groups("o%d_%d" % (r, e), "# + @") | indent(4) }}
    {% endfor %}
    if (lane < {{ lanes }}u) {
      {% for e in range(vectors) %}
      {% set l = e // quads %}
      if (unit + {{ l * lanes }}u < {{ units }}u) {
        parts[(subgroup * {{ rows }}u + (my_row ^ {{ r }}u)) * {{ units * quads }}u + place{{ l }} * {{ quads }}u + {{ e % quads }}u] = o{{ r }}_{{ e }};
      }
      {% endfor %}
    }
    if (lane == 0u) {
      part_stats[subgroup * {{ rows }}u + {{ r }}u] = vec2<f32>(most, all);
    }
  }
  {% endfor %}
  workgroupBarrier();
  for (var i = index; i < {{ rows * units * quads }}u; i += {{ subgroup * subgroups }}u) {
    let row = i / {{ units * quads }}u;
    let quad = i % {{ units * quads }}u;
    var most = LOWEST;
    for (var s = 0u; s < {{ subgroups }}u; s++) {
      most = max(most, part_stats[s * {{ rows }}u + row].x);
    }
    var all = 0.0;
    var sum = vec4<f32>();
    for (var s = 0u; s < {{ subgroups }}u; s++) {
      let stat = part_stats[s * {{ rows }}u + row];
      let factor = exp(max(stat.x - most, -100.0));
      all += factor * stat.y;
      sum += factor * parts[s * {{ rows * units * quads }}u + i];
    }
    let packed_row = first_row + row;
    if (packed_row <= last_row) {
      if (params.splits == 1u) {
        let head = (packed_row / params.group_size * params.kv_heads + kv_head) * params.group_size + packed_row % params.group_size;
        out[head * {{ units * quads }}u + quad] = sum / all;
      } else {
        let chunk = (kv_head * params.rows + packed_row) * params.splits + group.y;
        sums[chunk * {{ units * quads }}u + quad] = sum;
        if (quad == 0u) {
          stats[chunk] = vec2<f32>(most, all);
        }
      }
    }
  }
}
