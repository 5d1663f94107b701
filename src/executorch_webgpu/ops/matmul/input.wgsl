{#
Rows of x [m, k], four elements at a time, and the weights of an RMSNorm before the product. Bindings 0 and 6.

Inputs:
  vec4_x = True | False: k is a multiple of 4
  guarded = False | True: loads may pass the end of a row, where x is zero
  norm = True | False: whether there is a norm
#}
{% set element = "vec4<f32>" if vec4_x else "f32" %}
@group(0) @binding(0) var<storage, read> x: array<{{ element }}>;

fn load_x(row: u32, k: u32, width: u32) -> vec4<f32> {
  {% if vec4_x %}
  {% if guarded %}
  if (k >= width) {
    return vec4<f32>();
  }
  {% endif %}
  return x[(row * width + k) / 4u];
  {% else %}
  var values = vec4<f32>();
  {% for i in range(4) %}
  if (k + {{ i }}u < width) {
    values[{{ i }}] = x[row * width + k + {{ i }}u];
  }
  {% endfor %}
  return values;
  {% endif %}
}
{% if norm %}

@group(0) @binding(6) var<storage, read> norm_weight: array<{{ element }}>;

// Past the end, where x is zero, any weights.
fn load_norm_weight(k: u32, width: u32) -> vec4<f32> {
  let last = width - 1u;
  {% if vec4_x %}
  return norm_weight[min(k, last) / 4u];
  {% else %}
  return vec4<f32>(
    norm_weight[min(k, last)], norm_weight[min(k + 1u, last)],
    norm_weight[min(k + 2u, last)], norm_weight[min(k + 3u, last)],
  );
  {% endif %}
}
{% endif %}
