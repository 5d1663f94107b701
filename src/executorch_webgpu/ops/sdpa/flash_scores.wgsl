// s[row, column] += dot(Q[row], K[column]), from {{ "chunks in workgroup memory" if staged else "storage" }}.
{% macro accumulate() %}
{% for c in range(quads) %}
{% for x in "xyzw" %}
let {{ x }}{{ c }} = vec4(
  key{{ 4 * c }}.{{ x }}, key{{ 4 * c + 1 }}.{{ x }}, key{{ 4 * c + 2 }}.{{ x }}, key{{ 4 * c + 3 }}.{{ x }});
{% endfor %}
{% endfor %}
{% for r in range(rows) %}
{% for c in range(quads) %}
{% for x in "xyzw" %}
s{{ r }}_{{ c }} += query{{ r }}.{{ x }} * {{ x }}{{ c }};
{% endfor %}
{% endfor %}
{% endfor %}
{% endmacro %}
{% if staged %}
for (var chunk = 0u; chunk < params.vectors; chunk += DEPTH) {
  let inside = chunk + stage_d < params.vectors;
  let d = min(chunk + stage_d, params.vectors - 1u);
  {% for i in range(teams * rows * depth // (lanes * teams)) %}
  stage[stage_d * Q_STRIDE + stage_row + {{ i }}u * STAGE_STEP] = select(vec4<f32>(), q[stage_q{{ i }} + d], inside);
  {% endfor %}
  {% for i in range(lanes * 4 * quads * depth // (lanes * teams)) %}
  stage[K_START + stage_d * K_STRIDE + stage_row + {{ i }}u * STAGE_STEP] = select(vec4<f32>(),
    load_k(min(first + stage_row + {{ i }}u * STAGE_STEP, last), kv_head, d), inside);
  {% endfor %}
  workgroupBarrier();
  for (var i = 0u; i < DEPTH; i++) {
    {% for j in range(4 * quads) %}
    let key{{ j }} = stage[K_START + i * K_STRIDE + lane + {{ j }}u * LANES];
    {% endfor %}
    {% for r in range(rows) %}
    let query{{ r }} = stage[i * Q_STRIDE + team + {{ r }}u * TEAMS];
    {% endfor %}
    {{ accumulate() }}
  }
  workgroupBarrier();
}
{% else %}
{% for j in range(4 * quads) %}
let column{{ j }} = min(first + lane + {{ j }}u * LANES, last);
{% endfor %}
for (var i = 0u; i < params.vectors; i++) {
  {% for j in range(4 * quads) %}
  let key{{ j }} = load_k(column{{ j }}, kv_head, i);
  {% endfor %}
  {% for r in range(rows) %}
  let query{{ r }} = q[q{{ r }} + i];
  {% endfor %}
  {{ accumulate() }}
}
{% endif %}
