{#
The four products of a decoder layer, a function each: `load_NAME` brings the first weights of a lane, and `NAME` does the rest.
#}
fn silu(x: f32) -> f32 {
  let e = exp(-abs(x));  // never of a positive number, so that nothing overflows
  return x * select(1.0, e, x < 0.0) / (1.0 + e);
}

fn residual_of(layer: u32, middle: bool, at: u32) -> f32 {
  if (middle) {
    return taken(MIDDLE + at);
  }
  if (layer == 0u) {
    return x[at];
  }
  return taken(STREAM + at);
}

// ---- x of a product, from `begin` on, to workgroup memory; with a norm, times its weights ----
fn stage(layer: u32, source: u32, begin: u32, count: u32, norm: u32, has_norm: bool, index: u32, lane: u32) {
  var sum = 0.0;
  for (var first = index; first < count; first += 8u * SIZE) {
    var values: array<f32, 8>;
    {% for i in range(8) %}
    let j{{ i }} = begin + min(first + {{ i }}u * SIZE, count - 1u);
    {% endfor %}
    if (layer == 0u && source == STREAM) {
      {% for i in range(8) %}
      values[{{ i }}] = x[j{{ i }}];
      {% endfor %}
    } else {
      {% for i in range(8) %}
      values[{{ i }}] = taken(source + j{{ i }});
      {% endfor %}
    }
    {% for i in range(8) %}
    if (first + {{ i }}u * SIZE < count) {
      var value = values[{{ i }}];
      if (has_norm) {
        sum += value * value;
        value *= norms[norm + j{{ i }}];
      }
      let at = first + {{ i }}u * SIZE;
      {% if halves == 2 %}
      shared_x[at / 8u + at / 4u % 2u * {{ chunk // 8 }}u][at % 4u] = value;
      {% else %}
      shared_x[at / 4u][at % 4u] = value;
      {% endif %}
    }
    {% endfor %}
  }
  if (has_norm) {
    let all = subgroupAdd(sum);
    if (lane == 0u) {
      squares[index / SUBGROUP] = all;
    }
  }
}

fn norm_factor(eps: f32) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < SUBGROUPS; i++) {
    sum += squares[i];
  }
  return inverseSqrt(sum / f32(HIDDEN) + eps);
}

{% for role in roles %}
{% set n, each, k = loop.index0, role.each, role.k %}
{% set turns, width_lanes = unroll[n], lanes[n] %}
{% set units, teams, parts = k // per_unit, size // lanes[n], lanes[n] // subgroup %}
{% set units_of_group = (group or k) // per_unit %}
{% set chunks = (k + chunk - 1) // chunk %}
fn load_{{ role.name }}(layer: u32, group: u32, index: u32, unit: u32) -> Batch {
  var batch: Batch;
  let quad = min(group * {{ teams }}u + index / {{ width_lanes }}u, {{ role.quads // each - 1 }}u) * {{ each }}u;
  let at = layer * params.weights_of_layer + params.weights_at[{{ n }}] + quad * {{ units }}u;
  let scale_at = layer * params.scales_of_layer + params.scales_at[{{ n }}] + quad * {{ units // units_of_group }}u;
  {% for i in range(turns) %}
  let unit{{ i }} = min(unit + {{ i * width_lanes }}u, {{ units - 1 }}u);
  {% for u in range(each) %}
  batch.w{{ i * each + u }} = weights[at + {{ u * units }}u + unit{{ i }}];
  {% endfor %}{% endfor %}
  {% for i in range(turns) %}{% for u in range(each) %}
  batch.s{{ i * each + u }} = scales[scale_at + {{ u * (units // units_of_group) }}u + unit{{ i }} / {{ units_of_group }}u];
  {% endfor %}{% endfor %}
  return batch;
}

fn {{ role.name }}(layer: u32, group: u32, groups: u32, index: u32, lane: u32, first: Batch) {
  let turn_teams = groups * {{ teams }}u;
  let my_lane = index % {{ width_lanes }}u;
  {% if role.norm %}
  let norm = layer * params.norms_of_layer{{ " + params.second_norm" if n == 2 }};
  {% endif %}
  var batch = first;
  for (var turn = group; turn * {{ teams }}u < {{ role.quads // each }}u; turn += groups) {
    {% for u in range(each) %}
    var sum{{ u }} = vec4<f32>();
    {% endfor %}
    {% for c in range(chunks) %}
    {% set begin = c * chunk %}{% set count = [chunk, k - begin] | min %}
    {% if chunks == 1 %}
    if (turn == group) {
    {% else %}
    workgroupBarrier();
    {
    {% endif %}
      stage(layer, {{ ["STREAM", "ATTENDED", "MIDDLE", "GATED"][n] }}, {{ begin }}u, {{ count }}u, {{ "norm" if role.norm else "0u" }}, {{ "true" if role.norm else "false" }}, index, lane);
      workgroupBarrier();
    }
    for (var unit = {{ begin // per_unit }}u + my_lane; unit - my_lane < {{ (begin + count) // per_unit }}u; unit += {{ turns * width_lanes }}u) {
      if (turn != group || unit != my_lane) {
        batch = load_{{ role.name }}(layer, turn, index, unit);
      }
      {% for i in range(turns) %}
      if (unit + {{ i * width_lanes }}u < {{ (begin + count) // per_unit }}u) {
        let at = unit + {{ i * width_lanes }}u - {{ begin // per_unit }}u;
        let x0 = shared_x[at];
        {% if halves == 2 %}
        let x1 = shared_x[at + {{ chunk // 8 }}u];
        {% endif %}
        {% if mins %}
        let total = dot(x0{{ " + x1" if halves == 2 }}, vec4<f32>(1.0));
        {% endif %}
        {% for u in range(each) %}{% set w = "batch.w%d" % (i * each + u) %}{% set s = "batch.s%d" % (i * each + u) %}
        sum{{ u }} += four_scales({{ s }}) * vec4<f32>(
          {% for c in range(4) %}
          dot(four_codes({{ w }}[{{ c }}]), x0){% if halves == 2 %} + dot(four_codes({{ w }}[{{ c }}] >> 16u), x1){% endif %}{{ "," if c < 3 }}
          {% endfor %}
        ){% if mins %} + four_mins({{ s }}) * total{% endif %};
        {% endfor %}
      }
      {% endfor %}
    }
    {% endfor %}
    {% for u in range(each) %}
    sum{{ u }} = subgroupAdd(sum{{ u }});
    {% endfor %}
    // ---- parts of a team, one element for an invocation ----
    workgroupBarrier();
    if (lane == 0u) {
      {% for u in range(each) %}
      partials[index / SUBGROUP * {{ each }}u + {{ u }}u] = sum{{ u }};
      {% endfor %}
    }
    workgroupBarrier();
    let quad = turn * {{ teams }}u + index / 4u;
    if (index < {{ 4 * teams }}u && quad < {{ role.quads // each }}u) {
      let c = index % 4u;
      {% for u in range(each) %}
      var value{{ u }} = partials[index / 4u * {{ parts * each }}u + {{ u }}u][c];
      {% for p in range(1, parts) %}
      value{{ u }} += partials[index / 4u * {{ parts * each }}u + {{ p * each + u }}u][c];
      {% endfor %}{% endfor %}
      let at = quad * 4u + c;
      {% if n == 0 %}
      hand_over(QKV + at, value0 * norm_factor(params.eps));
      {% elif n == 1 %}
      hand_over(MIDDLE + at, value0 + residual_of(layer, false, at));
      {% elif n == 2 %}
      let factor = norm_factor(params.second_eps);
      hand_over(GATED + at, silu(value0 * factor) * (value1 * factor));
      {% else %}
      let value = value0 + residual_of(layer, true, at);
      if (layer + 1u == params.layers) {
        out[at] = value;
      } else {
        hand_over(STREAM + at, value);
      }
      {% endif %}
    }
  }
}

{% endfor %}
