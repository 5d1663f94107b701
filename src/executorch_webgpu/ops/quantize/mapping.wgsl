{#
Scale and zero point of a block from its smallest and largest element. Includes exact_quotient and rounding.

Inputs:
  mapping = "asymmetric" | "least_error" | "symmetric" | "no_clipping" | "magnitude": see parameters.py
  zero = "int8" | "uint8" | "int16" | "int32" | "float32": dtype of zero points
#}
{% include "wgsl/exact_quotient.wgsl" %}
{% include "quantize/rounding.wgsl" %}

// `range` is the lowest and the highest code, the smallest scale, and the zero point, where it is always the same.
// `found` is the smallest element, the largest, and 1 if one is NaN. x: the scale, y: the zero point.
fn parameters_of(found: vec3<f32>, range: vec4<f32>) -> vec2<f32> {
  let least = min(found.x, 0.0);
  let largest = max(found.y, 0.0);
  {% if mapping == "symmetric" %}
  let scale = max(exact_quotient(max(-least, largest), (range.y - range.x) / 2.0), range.z);
  {% elif mapping == "magnitude" %}
  let scale = exact_quotient(max(max(-least, largest), range.z), range.y);
  {% elif mapping == "no_clipping" %}
  let scale = max(max(exact_quotient(least, range.x), exact_quotient(largest, range.y)), range.z);
  {% else %}
  let scale = max(exact_quotient(largest - least, range.y - range.x), range.z);
  {% endif %}
  {% if mapping == "asymmetric" %}
  let zero = range.x - round(exact_quotient(least, scale));
  {% elif mapping == "least_error" %}
  let below = exact_quotient(least, scale);
  let above = exact_quotient(largest, scale);
  let error = (range.x + below) + (range.y + above);
  let zero = round(select(range.y - above, range.x - below, error > 0.0));
  {% else %}
  let zero = range.w;
  {% endif %}
  return vec2<f32>(scale, zero);
}

// NaN where an element is.
fn with_nan(x: vec4<f32>, is_nan: vec4<f32>) -> vec4<f32> {
  let none = bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) | vec4<u32>(0x7fc00000u));
  return select(x, none, is_nan > vec4<f32>(0.0));
}

// Zero points as they are stored, of the dtype's numbers.
{% if zero == "float32" %}
fn stored_zeros(zero: vec4<f32>, is_nan: vec4<f32>, range: vec4<f32>) -> vec4<f32> {
  return clamp(zero, vec4<f32>(range.x), vec4<f32>(range.y));
}
{% elif mapping in ("asymmetric", "least_error") %}
fn stored_zeros(zero: vec4<f32>, is_nan: vec4<f32>, range: vec4<f32>) -> vec4<i32> {
  return codes(with_nan(zero, is_nan), range.x, range.y);
}
{% else %}
fn stored_zeros(zero: vec4<f32>, is_nan: vec4<f32>, range: vec4<f32>) -> vec4<i32> {
  return codes(zero, range.x, range.y);
}
{% endif %}
