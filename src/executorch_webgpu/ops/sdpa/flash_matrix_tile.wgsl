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
