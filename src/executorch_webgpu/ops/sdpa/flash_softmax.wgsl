// Turns this tile's scores into weights relative to the rows' new maxima, and scales what was summed before.
{% for c in range(quads) %}
let columns{{ c }} = first + lane + LANES * (vec4({{ 4 * c }}u) + vec4(0u, 1u, 2u, 3u));
{% endfor %}
{% for r in range(rows) %}
{% for c in range(quads) %}
s{{ r }}_{{ c }} *= params.scale;
{% if mask %}
{% for x in "xyzw" %}
s{{ r }}_{{ c }}.{{ x }} += mask[mask{{ r }} + min(columns{{ c }}.{{ x }}, last) * params.mask_strides.w];
{% endfor %}
{% endif %}
s{{ r }}_{{ c }} = select(vec4(LOWEST), s{{ r }}_{{ c }}, columns{{ c }} <= vec4(last{{ r }}));
{% endfor %}
var most{{ r }} = s{{ r }}_0;
{% for c in range(1, quads) %}
most{{ r }} = max(most{{ r }}, s{{ r }}_{{ c }});
{% endfor %}
let top{{ r }} = max(max(most{{ r }}.x, most{{ r }}.y), max(most{{ r }}.z, most{{ r }}.w));
{% endfor %}
{% for b in range(rows // 4) %}
maxima[(team * {{ rows // 4 }}u + {{ b }}u) * MAXIMA_STRIDE + lane] =
  vec4(top{{ 4 * b }}, top{{ 4 * b + 1 }}, top{{ 4 * b + 2 }}, top{{ 4 * b + 3 }});
{% endfor %}
workgroupBarrier();
{% for b in range(rows // 4) %}
let before{{ b }} = largest{{ b }};
for (var i = 0u; i < LANES; i++) {
  largest{{ b }} = max(largest{{ b }}, maxima[(team * {{ rows // 4 }}u + {{ b }}u) * MAXIMA_STRIDE + i]);
}
let keep{{ b }} = exp(before{{ b }} - largest{{ b }});
total{{ b }} *= keep{{ b }};
{% endfor %}
{% for r in range(rows) %}
{% set component = "%d.%s" % (r // 4, "xyzw"[r % 4]) %}
{% for j in range(dims) %}
out{{ r }}_{{ j }} *= keep{{ component }};
{% endfor %}
{% for c in range(quads) %}
let weight{{ r }}_{{ c }} =
  select(vec4<f32>(), exp(s{{ r }}_{{ c }} - largest{{ component }}), columns{{ c }} <= vec4(last{{ r }}));
weights[(team + {{ r }}u * TEAMS) * WEIGHTS_STRIDE + lane + {{ c }}u * LANES] = weight{{ r }}_{{ c }};
total{{ component }} += dot(weight{{ r }}_{{ c }}, vec4(1.0));
{% endfor %}
{% endfor %}
