{#
Where element i of an index space lies in strided views, from their bases on.

There is no division for the outermost dimension, nor for those that are not there; indices into arrays are constants.

Inputs:
  views = ("x",) | ("x", "out"): of which tensors
#}
{% set type = "vec2<i32>" if views | length == 2 else "i32" %}
{% macro part(array, d) %}{{ array }}[{{ d // 4 }}].{{ "xyzw"[d % 4] }}{% endmacro %}
{% macro strides(d) -%}
{% if views | length == 2 %}vec2<i32>({{ part("x_strides", d) }}, {{ part("out_strides", d) }}){% else %}{{ part("x_strides", d) }}{% endif %}
{%- endmacro %}
// dims and strides innermost first
fn offsets(
  i: u32,
  rank: u32,
  dims: array<vec4<u32>, 2>,
{% for view in views %}
  {{ view }}_strides: array<vec4<i32>, 2>,
{% endfor %}
) -> {{ type }} {
  var rest = i;
  var at = {{ type }}(0);
  {% for d in range(7) %}
  if (rank <= {{ d + 1 }}u) {
    at += i32(rest) * {{ strides(d) }};
  } else {
    let outer{{ d }} = rest / {{ part("dims", d) }};
    at += i32(rest - outer{{ d }} * {{ part("dims", d) }}) * {{ strides(d) }};
    rest = outer{{ d }};
  {% endfor %}
    at += i32(rest) * {{ strides(7) }};
  {{ "}" * 7 }}
  return at;
}

// What a live index along a dimension of `size` adds; a negative one counts from the end.
fn moved(index: i32, size: i32, stride: i32) -> i32 {
  return clamp(select(index, index + size, index < 0), 0, size) * stride;
}
