{#
The last step of an elementwise kernel: four results as elements of a dtype. And the functions that expressions call.

Inputs:
  expression = "a + b" | "sine(x)": what is computed, which says which functions there must be
  compute = "f32" | "i32" | "u32": what was computed in; "u32" are elements as they are stored, whatever they mean
  out = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "bool" | "uint8" | "int8": dtype
#}
{% include "wgsl/elements.wgsl" %}
{% if "sine" in expression or "tangent" in expression %}
{% include "elementwise/trigonometric.wgsl" %}
{% else %}
{% include "elementwise/exponential.wgsl" %}
{% endif %}
{% include "elementwise/quotients.wgsl" %}

// Cut off towards zero, and held within 32 bits; NaN is 0.
fn to_integers(x: vec4<f32>) -> vec4<i32> {
  let whole = vec4<i32>(clamp(x, splat(-2147483648.0), splat(2147483520.0)));
  let top = select(whole, vec4<i32>(2147483647), x >= splat(2147483648.0));
  return select(top, vec4<i32>(0), is_nan(x));
}

fn packed(result: vec4<{{ compute }}>) -> {{ out }}_quad {
{% if compute == "u32" %}
  return join_{{ out }}(result);
{% elif out == "bool" and compute == "f32" %}
  return vec4<u32>(magnitude_bits(result) != vec4<u32>(0u));  // a subnormal is not 0, whatever arithmetic makes of it
{% elif out == "bool" %}
  return vec4<u32>(result != vec4<i32>(0));
{% elif compute == "f32" and "int" in out %}
  return pack_{{ out }}(to_integers(result));
{% else %}
  return pack_{{ out }}({{ out }}_numbers(result));
{% endif %}
}
