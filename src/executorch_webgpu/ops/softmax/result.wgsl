{#
The softmax of an element, of what is known of its row: a partial of kind "lse" (reduce/partial.wgsl).

Inputs:
  result = "softmax" | "log" | "safe": its logarithm, or 0 in rows of nothing but -inf; else these are NaN, as in torch
#}
fn softmax_of(x: f32, row: vec2<f32>) -> f32 {
  // The sum is infinite where an element is: all of the row is NaN then.
  let infinite = bitcast<u32>(row.y) == 0x7f800000u;
  let sum = bitcast<f32>(select(bitcast<u32>(row.y), 0x7fc00000u, infinite));
  {% if result == "log" %}
  return x - row.x - log(sum);
  {% elif result == "safe" %}
  return select(exp(x - row.x) / sum, 0.0, sum == 0.0);
  {% else %}
  return exp(x - row.x) / sum;
  {% endif %}
}
