{#
From exact sums of products of codes to codes. Includes rounding.

Inputs:
  relu = False | True: negative numbers become 0 first
#}
{% include "quantize/rounding.wgsl" %}

// `y` as codes of a tensor with the inverse scale `factor` and a zero point.
fn requantized(y: vec4<f32>, factor: f32, zero: i32) -> vec4<i32> {
  {% if relu %}
  let positive = max(y, vec4<f32>(0.0));
  {% else %}
  let positive = y;
  {% endif %}
  return codes(round(positive * factor) + f32(zero), -128.0, 127.0);
}
