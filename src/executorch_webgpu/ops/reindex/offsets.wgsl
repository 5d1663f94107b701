{#
Where element i of an index space lies in strided views.

There is no division for the outermost dimension, nor for those that are not there; indices into parameters are constants.

Inputs:
  views = ("x",) | ("x", "out"): of which tensors
  live = False | True: the view of x begins at a live index along a dimension
#}
{% set type = "vec2<i32>" if views | length == 2 else "i32" %}
{% macro strides(d) %}
{% if views | length == 2 -%}
vec2<i32>(params.x_strides[{{ d // 4 }}].{{ "xyzw"[d % 4] }}, params.out_strides[{{ d // 4 }}].{{ "xyzw"[d % 4] }})
{%- else -%}
params.x_strides[{{ d // 4 }}].{{ "xyzw"[d % 4] }}
{%- endif %}
{% endmacro %}
fn offsets(i: u32) -> {{ type }} {
  var rest = i;
  var at = {{ "vec2<i32>(params.x_base, params.out_base)" if views | length == 2 else "params.x_base" }};
  {% for d in range(7) %}
  if (params.rank <= {{ d + 1 }}u) {
    at += i32(rest) * {{ strides(d) | trim }};
  } else {
    let outer{{ d }} = rest / params.dims[{{ d // 4 }}].{{ "xyzw"[d % 4] }};
    at += i32(rest - outer{{ d }} * params.dims[{{ d // 4 }}].{{ "xyzw"[d % 4] }}) * {{ strides(d) | trim }};
    rest = outer{{ d }};
  {% endfor %}
    at += i32(rest) * {{ strides(7) | trim }};
  {{ "}" * 7 }}
{% if live %}
  let first = select(start, start + params.start_size, start < 0);
  at{{ ".x" if views | length == 2 }} += clamp(first, 0, params.start_size) * params.start_stride;
{% endif %}
  return at;
}
