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
{# A tile of keys ("k") or values ("v"): from storage to registers, from there to workgroup memory. #}
{% macro fetch(x, start) %}
{% if int8 and x == "k" %}
k_step = k_scales[min({{ start }} + index % {{ keys }}u, context - 1u) * params.kv_heads + kv_head];
{% endif %}
{% for i in range(loads) %}
{% if int8 and x == "v" %}
v_step{{ i }} = v_scales[min({{ start }} + load_row{{ i }}, context - 1u) * params.kv_heads + kv_head];
{% endif %}
{{ x }}{{ i }} = {{ x }}_cache[min({{ start }} + load_row{{ i }}, context - 1u) * cache_row + cache_head + load_word{{ i }}];
{% endfor %}
{% endmacro %}
{% macro stage(x, parity="") %}
{% if int8 and x == "k" %}
if (index < {{ keys }}u) {
  k_steps[{{ parity }}][index] = k_step;
}
{% endif %}
{% for i in range(loads) %}
{% if (i + 1) * lanes > keys * row_loads %}
if (load_row{{ i }} < {{ keys }}u) {
{% endif %}
{% for j in range(width // unit) %}
{{ x }}_tile[(load_word{{ i }} * {{ width // unit }}u + {{ j }}u) / {{ words }}u][load_row{{ i }} * {{ kv_row }}u + (load_word{{ i }} * {{ width // unit }}u + {{ j }}u) % {{ words }}u]
  = {{ "scaled%d(v%d, v_step%d)" % (j, i, i) if int8 and x == "v" else "staged%d(%s%d)" % (j, x, i) }};
{% endfor %}
{% if (i + 1) * lanes > keys * row_loads %}
}
{% endif %}
{% endfor %}
{% endmacro %}
{# Q K^T of a tile, to the memory of the scores; `s0`, `s16`, ... are zero before. #}
{% macro products() %}
{% for d in range(dims) %}
{% for n in range(0, keys, 16) %}
let key{{ d }}_{{ n }} = subgroupMatrixLoad<Right, col_major>(&k_tile[part], {{ n * kv_row + 16 * d // unit }}u, {{ kv_row }}u);
{% endfor %}
{% for x in (("q", "rest") if exact else ("q",)) %}
{% for n in range(0, keys, 16) %}
s{{ n }} = subgroupMatrixMultiplyAccumulate({{ x }}{{ d }}, key{{ d }}_{{ n }}, s{{ n }});
{% endfor %}
{% endfor %}
{% endfor %}
{% for n in range(0, keys, 16) %}
subgroupMatrixStore<row_major>(&scores[subgroup], {{ n // 4 }}u, s{{ n }}, {{ s_row }}u);
{% endfor %}
{% endmacro %}
{# The scores of a tile, out of the memory where its products are; `parity` is that of the tile's steps. #}
{% macro take_scores(parity) %}
{% for j in range(quads) %}
score{{ j }} = {% for s in range(split) %}{{ " + " if s }}scores[subgroup / {{ split }}u * {{ split }}u + {{ s }}u][my_scores + {{ j }}u]{% endfor %};
{% if int8 %}
score{{ j }} *= vec4<f32>(
{%- for c in range(4) %}{{ ", " if c }}k_steps[{{ parity }}][side * {{ keys // 2 }}u + {{ 4 * j + c }}u]{% endfor %});
{% endif %}
{% endfor %}
{% endmacro %}
{% include "wgsl/kv_cache.wgsl" %}

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

// Eight numbers as float16, in one word a pair.
fn halves(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(
    pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw)
  );
}

// The upper 11 bits of each number, which float16 can hold. (Converting there and back is undone by a compiler.)
fn upper(x: vec4<f32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xffffe000u));
}

// What float16 can hold: larger numbers become the largest. NaN and infinity stay, and give NaN.
fn bounded(x: vec4<f32>) -> vec4<f32> {
  let special = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
  return select(clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0)), x, special);
}
// One load of a cache as float16 in workgroup memory, {{ unit }} in an element of it: an int8 cache's codes, each exact.
{% if int8 %}
// Four codes, in the order 0, 2, 1, 3. A float16 of 0x6400 and a byte is 1024 and that byte.
fn codes(x: u32) -> vec2<u32> {
  let biased = x ^ 0x80808080u;
  let even = bitcast<vec2<f16>>((biased & 0x00ff00ffu) | 0x64006400u) - vec2<f16>(1152.0h);
  let odd = bitcast<vec2<f16>>(((biased >> 8u) & 0x00ff00ffu) | 0x64006400u) - vec2<f16>(1152.0h);
  return vec2<u32>(bitcast<u32>(even), bitcast<u32>(odd));
}

{% endif %}
{% for i in range(width // unit) %}
fn staged{{ i }}(x: CacheLoad) -> Staged {
  {% if cache == "float16" %}
  return x;
  {% elif unit == 4 %}
  return codes(x);
  {% else %}
  return vec4<u32>(codes(x[{{ 2 * i }}]), codes(x[{{ 2 * i + 1 }}]));
  {% endif %}
}

{% endfor %}
{% if int8 %}
{% for i in range(width // unit) %}
// The values themselves, rounded to float16.
fn scaled{{ i }}(x: CacheLoad, step: f32) -> Staged {
  {% if unit == 4 %}
  return halves(bounded(step * cache_quad0(x)), vec4<f32>()).xy;
  {% else %}
  return halves(bounded(step * cache_quad{{ 2 * i }}(x)), bounded(step * cache_quad{{ 2 * i + 1 }}(x)));
  {% endif %}
}

{% endfor %}
{% endif %}

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
  // Q, {{ keys }} rows at a time: q through the memory of keys{{ ", rest through that of values" if exact }}.
  {% set q_words = split * words %}
  {% set q_loads = (keys * q_words + lanes - 1) // lanes %}
  {% set rounds = range(0, 16 * row_blocks, keys) %}
  {% set guarded = keys * q_words % lanes > 0 %}
  {% for first in rounds %}
  {% for i in range(q_loads) %}
  {% set name = "x%d_%d" % (first, i) %}
  {% for j in range(unit // 4) %}
  var {{ name }}_{{ j }} = vec4<f32>();
  {% endfor %}
  {
    let place = index + {{ i * lanes }}u;
    let word = place % {{ q_words }}u;
    let row = min(first_row + {{ first }}u + place / {{ q_words }}u, last_row);
    let head = row / params.group_size * heads + kv_head * params.group_size + row % params.group_size;
    {% if q_words != head_words %}
    if (word < {{ head_words }}u) {
    {% endif %}
      {% for j in range(unit // 4) %}
      {{ name }}_{{ j }} = bounded(params.scale * q[head * {{ head_dim // 4 }}u + word * {{ unit // 4 }}u + {{ j }}u]{{ order }});
      {% endfor %}
    {% if q_words != head_words %}
    }
    {% endif %}
  }
  {% endfor %}
  {% endfor %}
  {% for first in rounds %}
  {% for i in range(q_loads) %}
  {% set name = "x%d_%d" % (first, i) %}
  {% if guarded %}
  if (index + {{ i * lanes }}u < {{ keys * q_words }}u) {
  {% else %}
  {
  {% endif %}
    let place = index + {{ i * lanes }}u;
    let to = place / {{ q_words }}u * {{ kv_row }}u + place % {{ words }}u;
    let to_part = place % {{ q_words }}u / {{ words }}u;
    {% if not exact and unit == 8 %}
    k_tile[to_part][to] = halves({{ name }}_0, {{ name }}_1);
    {% elif not exact %}
    k_tile[to_part][to] = halves({{ name }}_0, vec4<f32>()).xy;
    {% elif unit == 8 %}
    k_tile[to_part][to] = halves(upper({{ name }}_0), upper({{ name }}_1));
    v_tile[to_part][to] = halves({{ name }}_0 - upper({{ name }}_0), {{ name }}_1 - upper({{ name }}_1));
    {% else %}
    let both = halves(upper({{ name }}_0), {{ name }}_0 - upper({{ name }}_0));
    k_tile[to_part][to] = both.xy;
    v_tile[to_part][to] = both.zw;
    {% endif %}
  }
  {% endfor %}
  workgroupBarrier();
  {% for block in range(0, keys, 16) %}
  if (subgroup / {{ split }}u == {{ (first + block) // 16 }}u) {
    {% for d in range(dims) %}
    q{{ d }} = subgroupMatrixLoad<Left, row_major>(&k_tile[part], {{ block * kv_row + 16 * d // unit }}u, {{ kv_row }}u);
    {% if exact %}
    rest{{ d }} = subgroupMatrixLoad<Left, row_major>(&v_tile[part], {{ block * kv_row + 16 * d // unit }}u, {{ kv_row }}u);
    {% endif %}
    {% endfor %}
  }
  {% endfor %}
  workgroupBarrier();
  {% endfor %}
  {% if split * words != head_words %}
  // Dims behind the head are zeros, which no tile overwrites.
  for (var i = index; i < {{ keys }}u; i += {{ lanes }}u) {
    for (var j = {{ head_words }}u; j < {{ split * words }}u; j++) {
      k_tile[j / {{ words }}u][i * {{ kv_row }}u + j % {{ words }}u] = Staged();
      v_tile[j / {{ words }}u][i * {{ kv_row }}u + j % {{ words }}u] = Staged();
    }
  }
  {% endif %}

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
    // The online softmax of a tile: half a row a lane, no branch, so that it mixes with the products above.
    {% for j in range(quads) %}
    score{{ j }} = select(vec4<f32>(LOWEST), score{{ j }}, my_columns + (start + {{ 4 * j }}u) < vec4<u32>(visible));
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
    if (largest > before && start > 0u) {
      atomicStore(&grown[0], 1u);
    }
    {{ stage("v") | indent(4) }}

    if (workgroupUniformLoad(&grown[0]) != 0u) {
      // Through the memory of the scores, {{ keys }} dims at a time, half a row a lane. The next tile's scores wait there:
      // they are taken out first and put back at the end.
      {% for j in range(quads) %}
      let waiting{{ j }} = scores[subgroup][my_scores + {{ j }}u];
      {% endfor %}
      workgroupBarrier();
      {% for first in range(0, dims, keys // 16) %}
      {% set tiles = range(first, [first + keys // 16, dims] | min) %}
      {% for d in tiles %}
      subgroupMatrixStore<row_major>(&scores[subgroup], {{ 4 * (d - first) }}u, o{{ d }}, {{ s_row }}u);
      {% endfor %}
      workgroupBarrier();
      for (var j = 0u; j < {{ quads }}u; j++) {
        scores[subgroup][my_scores + j] *= factor;
      }
      workgroupBarrier();
      {% for d in tiles %}
      o{{ d }} = subgroupMatrixLoad<Sum, row_major>(&scores[subgroup], {{ 4 * (d - first) }}u, {{ s_row }}u);
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

  // The result, through the memory of the scores, {{ keys }} dims at a time.
  let inverse = 1.0 / (total + subgroupShuffleXor(total, 16u));
  let head = packed_row / params.group_size * heads + kv_head * params.group_size + packed_row % params.group_size;
  let to = head * {{ head_dim // 4 }}u;
  let is_mine = first_row + subgroup / {{ split }}u * 16u + row < params.row_count;
  {% for first in range(0, dims, keys // 16) %}
  {% for d in range(first, [first + keys // 16, dims] | min) %}
  subgroupMatrixStore<row_major>(&scores[subgroup], {{ 4 * (d - first) }}u, o{{ d }}, {{ s_row }}u);
  {% endfor %}
  workgroupBarrier();
  for (var j = 0u; j < {{ quads }}u; j++) {
    let local_quad = {{ 4 * first }}u + side * {{ quads }}u + j;
    let quad = part * {{ 4 * dims }}u + local_quad;
    if (is_mine && local_quad < {{ 4 * dims }}u && quad < {{ head_dim // 4 }}u) {
      out[to + quad] = scores[subgroup][my_scores + j] * inverse;
    }
  }
  workgroupBarrier();
  {% endfor %}
}
