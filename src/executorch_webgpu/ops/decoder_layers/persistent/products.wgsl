{#
The four products of a layer: `load_NAME` asks for a batch of weights, and `NAME` does the rest. As soon as a unit of a batch has
been used, the one that will take its place is asked for, so that almost a whole batch is always on its way. Each product has code
of its own, with its sizes in it: what one code for all of them had to look up took longer than the products.
#}
{% set unit_group = (group or 2**30) // per_unit %}
{% set whole = bits == 4 %}
{% include "wgsl/silu.wgsl" %}

const UNIT_GROUP = {{ unit_group }}u;  // units that share scales
const OF_SET = {{ of_set }}u;

fn norm_factor(eps: f32) -> f32 {
  var sum = 0.0;
  {% for i in range(subgroups) %}
  sum += squares[{{ i }}];
  {% endfor %}
  return inverseSqrt(sum / f32(HIDDEN) + eps);
}

fn shared_quad(at: u32) -> vec4<f32> {
  return bitcast<vec4<f32>>(shared_x[at]);
}

struct Place {  // of a batch, for an invocation: its first unit in a row, and where two rows of weights and scales begin
  unit: u32,
  weights: u32,
  scales: u32,
}

// x of a product, elements from `begin` on, to workgroup memory; with a norm, times its weights. The `last` ones complete its sum.
{% macro stage(source, begin, count, norm, last) %}
{% set at_once = [(count + size - 1) // size, 16] | min %}
{% set is_exact = count % (at_once * size) == 0 and size % 8 == 0 %}
for (var round = 0u; round < {{ count }}u; round += {{ at_once * size }}u) {
  {% for i in range(at_once) %}
  {% if is_exact %}
  let e{{ i }} = round + index + {{ begin + i * size }}u;
  {% else %}
  let e{{ i }} = {{ begin }}u + min(round + index + {{ i * size }}u, {{ count - 1 }}u);
  {% endif %}
  let at{{ i }} = {{ source }} + e{{ i }};
  var word{{ i }}: u32;
  {% if norm %}
  let factor{{ i }} = norms[{{ norm }} + e{{ i }}];
  {% endif %}
  {% endfor %}
  var missing: u32;
  {{ await("word", "at", at_once) | indent(2) -}}
  let quad = round / 8u + index / 8u + index / 4u % 2u * {{ chunk // 8 }}u;
  {% for i in range(at_once) %}
  {% if not is_exact %}
  if (round + index + {{ i * size }}u < {{ count }}u)
  {% endif %}
  {
    let value = value_of(word{{ i }});
    {% if norm %}
    square += value * value;
    {% endif %}
    let scaled = bitcast<u32>({{ "value * factor%d" % i if norm else "value" }});
    {% if halves == 2 %}
    shared_x[quad + {{ i * size // 8 }}u][index % 4u] = scaled;
    {% else %}
    shared_x[round / 4u + index / 4u + {{ i * size // 4 }}u][index % 4u] = scaled;
    {% endif %}
  }
  {% endfor %}
}
{% if norm and last %}
let of_subgroup = subgroupAdd(square);
if (lane == 0u) {
  squares[index / SUBGROUP] = of_subgroup;
}
{% endif %}
{% if whole %}
workgroupBarrier();
for (var unit = index; unit < {{ count // per_unit }}u; unit += SIZE) {
  let whole = whole_of(shared_quad(unit), shared_quad(unit + {{ chunk // 8 }}u));
  shared_x[unit] = whole.high;
  shared_x[unit + {{ chunk // 8 }}u] = {{ "whole.low" if x_bytes == 3 else "vec4<u32>(whole.low, 0u, 0u)" }};
}
{% endif %}
workgroupBarrier();
{% endmacro %}
{% for role in roles %}
{% set n, k, team = loop.index0, role.k, lanes[loop.index0] %}
{% set units, teams, parts = k // per_unit, size // team, team // subgroup %}
{% set turns = [unroll, (units + team - 1) // team] | min %}
{% set step = turns * team %}
{% set unit_groups = [units // unit_group, 1] | max %}
{% set scale_loads = (turns * of_set + subgroup - 1) // subgroup %}
{% set chunks = (k + chunk - 1) // chunk %}
{% set quads = 1 if n == 2 else 2 %}
struct {{ role.batch }} {
  {% for i in range(2 * turns) %}
  w{{ i }}: vec4<u32>,
  {% endfor %}
  {% for i in range(2 * scale_loads) %}
  s{{ i }}: FourScales,
  {% endfor %}
}

fn place_of_{{ role.name }}(layer: u32, turn: u32, unit: u32, index: u32) -> Place {
  let quad = 2u * min(turn * {{ teams }}u + index / {{ team }}u, {{ role.slots - 1 }}u);
  return Place(
    unit + index % {{ team }}u,
    layer * params.weights_of_layer + params.weights_at[{{ n }}] + quad * {{ units }}u,
    layer * params.scales_of_layer + params.scales_at[{{ n }}] + quad * {{ unit_groups }}u,
  );
}

{% macro load_unit(place, i) %}
{% if units % step == 0 and chunks == 1 %}
let unit{{ i }} = {{ place }}.weights + {{ place }}.unit + {{ i * team }}u;
{% else %}
let unit{{ i }} = {{ place }}.weights + min({{ place }}.unit + {{ i * team }}u, {{ units - 1 }}u);
{% endif %}
batch.w{{ 2 * i }} = weights[unit{{ i }}];
batch.w{{ 2 * i + 1 }} = weights[unit{{ i }} + {{ units }}u];
{% endmacro %}
{# A scale that some units share is loaded by one lane. #}
{% macro load_scales(place, i) %}
{% set number = "(lane + %du)" % (i * subgroup) if i else "lane" %}
let group{{ i }} = {{ place }}.scales + min(({{ place }}.unit - lane + {{ number }} / OF_SET * {{ team }}u) / UNIT_GROUP + {{ number }} % OF_SET, {{ unit_groups - 1 }}u);
batch.s{{ 2 * i }} = scales[group{{ i }}];
batch.s{{ 2 * i + 1 }} = scales[group{{ i }} + {{ unit_groups }}u];
{% endmacro %}
fn load_{{ role.name }}(layer: u32, turn: u32, unit: u32, index: u32, lane: u32) -> {{ role.batch }} {
  var batch: {{ role.batch }};
  let place = place_of_{{ role.name }}(layer, turn, unit, index);
  {% for i in range(turns) %}
  {{ load_unit("place", i) | indent(2) -}}
  {% endfor %}
  {% for i in range(scale_loads) %}
  {{ load_scales("place", i) | indent(2) -}}
  {% endfor %}
  return batch;
}

fn {{ role.name }}(layer: u32, tag: u32, group: u32, groups: u32, index: u32, lane: u32, first_batch: {{ role.batch }}) {
  if (group * {{ teams }}u >= {{ role.slots }}u) {
    return;
  }
  let my_lane = index % {{ team }}u;
  {% set norm = {0: "layer * params.norms_of_layer", 2: "layer * params.norms_of_layer + params.second_norm"}.get(n) %}
  {% set source = ["STREAM", "ATTENDED", "MIDDLE", "GATED"][n] %}
  var batch = first_batch;
  {% if chunks == 1 %}
  workgroupBarrier();
  {% if norm %}
  var square = 0.0;
  {% endif %}
  {{ stage(source, 0, k, norm, true) | indent(2) -}}
  {% endif %}
  for (var turn = group; turn * {{ teams }}u < {{ role.slots }}u; turn += groups) {
    // ---- the element that this invocation will hand over, if it has one: of two quads, or of one of gate and one of up ----
    let slot = turn * {{ teams }}u + index / {{ team }}u;
    let number = lane / LANES_OF_SUM;
    let to = slot * {{ 4 * quads }}u + number % {{ 4 * quads }}u;
    let is_own = lane % LANES_OF_SUM == 0u && index % {{ team }}u < SUBGROUP{{ " && number < 4u" if n == 2 }};
    let has_one = is_own && slot < {{ role.slots }}u;
    {% if n in (1, 3) %}
    let at0 = {{ "STREAM" if n == 1 else "MIDDLE" }} + to;
    var word0: u32;
    if (has_one) {
      word0 = word_at(at0);
    }
    {% endif %}
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    {% if norm and chunks > 1 %}
    var square = 0.0;
    {% endif %}
    {% for p in range(chunks) %}
    {% set begin, count = p * chunk, [chunk, k - p * chunk] | min %}
    {% set begin_unit, end_unit = begin // per_unit, (begin + count) // per_unit %}
    {% if chunks > 1 %}
    {
    workgroupBarrier();
    {{ stage(source, begin, count, norm, p + 1 == chunks) | indent(4) -}}
    {% endif %}
    {% if count // per_unit <= step %}
    {
      let unit = {{ begin_unit }}u;
    {% else %}
    for (var unit = {{ begin_unit }}u; unit < {{ end_unit }}u; unit += {{ step }}u) {
    {% endif %}
      {% if p + 1 < chunks %}
      let next = place_of_{{ role.name }}(layer, turn, min(unit + {{ step }}u, {{ end_unit }}u), index);
      {% else %}
      let ends = unit + {{ step }}u >= {{ end_unit }}u;
      // After the last turn its beginning is loaded again, from a cache: to ask first whether there is another one costs more.
      let goes_on = ends && (turn + groups) * {{ teams }}u < {{ role.slots }}u;
      let next = place_of_{{ role.name }}(layer, select(turn, turn + groups, goes_on), select(unit + {{ step }}u, 0u, ends), index);
      {% endif %}
      let first = unit + my_lane;
      {% for i in range(turns) %}
      {
        {% set within = i * of_set %}{% set load = within // subgroup %}
        let set_begin = first - lane + {{ i * team }}u;
        let from_lane = {{ within % subgroup }}u + (set_begin + lane) / UNIT_GROUP - set_begin / UNIT_GROUP;
        {% for u in range(2) %}
        let packed{{ u }} = subgroupShuffle(batch.s{{ 2 * load + u }}, from_lane);
        {% endfor %}
        {% if count // per_unit % step %}
        if (first + {{ i * team }}u < {{ end_unit }}u)
        {% endif %}
        {
          let at = first + {{ i * team }}u - {{ begin_unit }}u;
          {% if whole %}
          let whole = Whole(shared_x[at], shared_x[at + {{ chunk // 8 }}u]{{ ".xy" if x_bytes == 2 }});
          {% for u in range(2) %}
          sum{{ u }} = fma(four_scales(packed{{ u }}), products_of(batch.w{{ 2 * i + u }}, whole), sum{{ u }}{% if mins %} + four_mins(packed{{ u }}) * sum_of(whole){% endif %});
          {% endfor %}
          {% else %}
          let x0 = shared_quad(at);
          {% if halves == 2 %}
          let x1 = shared_quad(at + {{ chunk // 8 }}u);
          {% endif %}
          {% if mins %}
          let total = dot(x0{{ " + x1" if halves == 2 }}, vec4<f32>(1.0));
          {% endif %}
          {% for u in range(2) %}
          sum{{ u }} += four_scales(packed{{ u }}) * vec4<f32>(
            {% for c in range(4) %}
            dot(four_codes(batch.w{{ 2 * i + u }}[{{ c }}]), x0){% if halves == 2 %} + dot(four_codes(batch.w{{ 2 * i + u }}[{{ c }}] >> 16u), x1){% endif %}{{ "," if c < 3 }}
            {% endfor %}
          ){% if mins %} + four_mins(packed{{ u }}) * total{% endif %};
          {% endfor %}
          {% endif %}
        }
        {{ load_unit("next", i) | indent(8) -}}
        {% if i + 1 == turns or (i + 1) * of_set // subgroup != load %}
        {{ load_scales("next", load) | indent(8) -}}
        {% endif %}
      }
      {% endfor %}
    }
    {% if chunks > 1 %}
    }
    {% endif %}
    {% endfor %}
    // ---- all lanes of a team ----
    var value = own_sum(sum0, sum1, lane);
    {% if parts > 1 %}
    workgroupBarrier();
    partials[index / SUBGROUP * 8u + number] = value;
    workgroupBarrier();
    value = 0.0;
    {% for p in range(parts) %}
    value += partials[(index / {{ team }}u * {{ parts }}u + {{ p }}u) * 8u + number];
    {% endfor %}
    {% endif %}
    {% if n == 2 %}
    let up = subgroupShuffleXor(value, {{ subgroup // 2 }}u);
    {% endif %}
    if (has_one) {
      {% if n == 0 %}
      hand_over(QKV + to, value * norm_factor(params.eps), tag);
      {% elif n == 2 %}
      let factor = norm_factor(params.second_eps);
      hand_over(GATED + to, silu(value * factor) * (up * factor), tag);
      {% else %}
      var missing = (word0 ^ tag) & 1u;
      if (missing != 0u) {
        {{ await("word", "at", 1) | indent(8) -}}
      }
      value += value_of(word0);
      {% if n == 1 %}
      hand_over(MIDDLE + to, value, tag);
      {% else %}
      if (layer + 1u < params.layers) {
        hand_over(STREAM + to, value, tag + 1u);
      } else {
        let failed = is_late || atomicLoad(&work[FAILED]) != 0u;  // in this workgroup or another one
        out[to] = select(value, not_a_number(), failed);
      }
      {% endif %}
      {% endif %}
    }
  }
}

{% endfor %}
