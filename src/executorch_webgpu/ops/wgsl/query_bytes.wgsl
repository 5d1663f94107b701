{# Against int8 codes a query is integers of three bytes, times a step of its own: dot products by dot4I8Packed. #}
{# The largest of q<r>_0, ..., and exponent bits that are all ones if one is no number: integers know no NaN. #}
{% macro extremes(r, vectors, largest, infinite) %}
var {{ largest }} = 1e-30;
var {{ infinite }} = 0u;
{% for e in range(vectors) %}
{{ largest }} = max({{ largest }}, largest_of(q{{ r }}_{{ e }}));
{{ infinite }} = max({{ infinite }}, largest_exponent(q{{ r }}_{{ e }}));
{% endfor %}
{% endmacro %}
{# high<r>_0, middle<r>_0, low<r>_0, ...: q<r>_0, ... in units of step<r>. #}
{% macro bytes(r, vectors, largest, infinite) %}
let finite_step{{ r }} = {{ largest }} / 8323072.0;  // 127 * 2^16
let step{{ r }} = select(finite_step{{ r }}, bitcast<f32>({{ infinite }} | 0x400000u), {{ infinite }} == 0x7f800000u);
{% for e in range(vectors) %}
let fixed{{ r }}_{{ e }} = vec4<i32>(round(q{{ r }}_{{ e }} / step{{ r }}));
let upper{{ r }}_{{ e }} = (fixed{{ r }}_{{ e }} + 128) >> vec4<u32>(8u);
let top{{ r }}_{{ e }} = (upper{{ r }}_{{ e }} + 128) >> vec4<u32>(8u);
let high{{ r }}_{{ e }} = pack4xI8(top{{ r }}_{{ e }});
let middle{{ r }}_{{ e }} = pack4xI8(upper{{ r }}_{{ e }} - (top{{ r }}_{{ e }} << vec4<u32>(8u)));
let low{{ r }}_{{ e }} = pack4xI8(fixed{{ r }}_{{ e }} - (upper{{ r }}_{{ e }} << vec4<u32>(8u)));
{% endfor %}
{% endmacro %}
{% macro functions() %}
fn largest_exponent(x: vec4<f32>) -> u32 {
  let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u);
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

fn largest_of(x: vec4<f32>) -> f32 {
  let a = abs(x);
  return max(max(a.x, a.y), max(a.z, a.w));
}

{% endmacro %}
{# The dot product of q<r>_0, ... and `codes`, words in the same order, in units of step<r>. #}
{% macro dot(r, codes) %}
65536.0 * f32({{ sum("high", r, codes) }})
  + f32(256 * ({{ sum("middle", r, codes) }}) + {{ sum("low", r, codes) }})
{%- endmacro %}
{% macro sum(bytes, r, codes) %}
{% for word in codes %}{{ " + " if not loop.first }}dot4I8Packed({{ bytes }}{{ r }}_{{ loop.index0 }}, {{ word }}){% endfor %}
{% endmacro %}
