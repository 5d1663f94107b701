// out[row] += weights[row, column] * V[column], four columns at a time.
{% macro accumulate(u) %}
{% for r in range(rows) %}
let weight{{ r }} = weights[(team + {{ r }}u * TEAMS) * WEIGHTS_STRIDE + {{ u }}];
{% for j in range(dims) %}
{% for x in "xyzw" %}
out{{ r }}_{{ j }} += weight{{ r }}.{{ x }} * value{{ loop.index0 }}_{{ j }};
{% endfor %}
{% endfor %}
{% endfor %}
{% endmacro %}
{% if stage_values %}
for (var chunk = 0u; chunk < {{ lanes * quads }}u; chunk += {{ value_quads }}u) {
  {% for i in range((4 * value_quads + teams - 1) // teams) %}
  {
    let slot = team + {{ i }}u * TEAMS;
    let u = chunk + slot / 4u;
    let column = min(first + u % LANES + LANES * (u / LANES * 4u + slot % 4u), last);
    {% if 4 * value_quads % teams %}
    if (slot < {{ 4 * value_quads }}u) {
    {% endif %}
    {% for j in range(dims) %}
    {% if ragged and j == dims - 1 %}
    if (lane + {{ j }}u * LANES < params.vectors) {
      stage[slot * {{ lanes * dims }}u + lane + {{ j }}u * LANES] = load_v(column, kv_head, lane + {{ j }}u * LANES);
    }
    {% else %}
    stage[slot * {{ lanes * dims }}u + lane + {{ j }}u * LANES] = load_v(column, kv_head, lane + {{ j }}u * LANES);
    {% endif %}
    {% endfor %}
    {% if 4 * value_quads % teams %}
    }
    {% endif %}
  }
  {% endfor %}
  workgroupBarrier();
  for (var i = 0u; i < {{ value_quads }}u; i++) {
    {% for c in range(4) %}
    {% for j in range(dims) %}
    let value{{ c }}_{{ j }} = stage[(4u * i + {{ c }}u) * {{ lanes * dims }}u + lane + {{ j }}u * LANES];
    {% endfor %}
    {% endfor %}
    {{ accumulate("chunk + i") }}
  }
  workgroupBarrier();
}
{% else %}
workgroupBarrier();
for (var u = 0u; u < {{ lanes * quads }}u; u++) {
  {% for c in range(4) %}
  let column{{ c }} = min(first + u % LANES + LANES * (u / LANES * 4u + {{ c }}u), last);
  {% for j in range(dims) %}
  let value{{ c }}_{{ j }} = load_v(column{{ c }}, kv_head, min(lane + {{ j }}u * LANES, params.vectors - 1u));
  {% endfor %}
  {% endfor %}
  {{ accumulate("u") }}
}
{% endif %}
