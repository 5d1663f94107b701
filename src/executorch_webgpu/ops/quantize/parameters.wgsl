{#
Scale and zero point of every block from its smallest and largest element, those of four blocks per invocation.

Inputs:
  mapping = "asymmetric" | "least_error" | "symmetric" | "no_clipping" | "magnitude": see parameters.py
  scale = "float32" | "float16": dtype
  zero = "int8" | "uint8" | "int32" | "float32": dtype
#}
@group(0) @binding(0) var<storage, read> extremes: array<vec4<f32>>;  // [blocks, parts]: least, largest, 1 if one is NaN
@group(0) @binding(1) var<storage, read_write> scales: array<{{ scale }}_quad>;
@group(0) @binding(2) var<storage, read_write> zeros: array<{{ zero }}_quad>;

struct Params {
  blocks: u32,
  parts: u32,
  low: f32,   // codes
  high: f32,
  eps: f32,   // the smallest scale
  zero: f32,  // the zero point, where it is always the same
}
@group(0) @binding(3) var<uniform> params: Params;

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/exact_quotient.wgsl" %}
{% include "quantize/rounding.wgsl" %}

// Scale, zero point, and 1 if an element is NaN, which these are then, too.
fn parameters(block: u32) -> vec3<f32> {
  var found = extremes[block * params.parts];
  for (var part = 1u; part < params.parts; part++) {
    let other = extremes[block * params.parts + part];
    found = vec4<f32>(min(found.x, other.x), max(found.y, other.y), max(found.z, other.z), 0.0);
  }
  let least = min(found.x, 0.0);
  let largest = max(found.y, 0.0);
  {% if mapping == "symmetric" %}
  let scale = max(exact_quotient(max(-least, largest), (params.high - params.low) / 2.0), params.eps);
  {% elif mapping == "magnitude" %}
  let scale = exact_quotient(max(max(-least, largest), params.eps), params.high);
  {% elif mapping == "no_clipping" %}
  let scale = max(max(exact_quotient(least, params.low), exact_quotient(largest, params.high)), params.eps);
  {% else %}
  let scale = max(exact_quotient(largest - least, params.high - params.low), params.eps);
  {% endif %}
  {% if mapping == "asymmetric" %}
  let zero = params.low - round(exact_quotient(least, scale));
  {% elif mapping == "least_error" %}
  let below = exact_quotient(least, scale);
  let above = exact_quotient(largest, scale);
  let error = (params.low + below) + (params.high + above);
  let zero = round(select(params.high - above, params.low - below, error > 0.0));
  {% else %}
  let zero = params.zero;
  {% endif %}
  return vec3<f32>(scale, zero, found.z);
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.blocks) {
    return;
  }
  var scale = vec4<f32>();
  var zero = vec4<f32>();
  var nan = vec4<f32>();
  for (var j = 0u; j < 4u; j++) {
    let found = parameters(min(i * 4u + j, params.blocks - 1u));
    scale[j] = found.x;
    zero[j] = found.y;
    nan[j] = found.z;
  }
  let none = bitcast<vec4<f32>>(bitcast<vec4<u32>>(scale) | vec4<u32>(0x7fc00000u));
  scales[i] = pack_{{ scale }}({{ scale }}_numbers(select(scale, none, nan > vec4<f32>(0.0))));
  {% if zero == "float32" %}
  zeros[i] = clamp(zero, vec4<f32>(params.low), vec4<f32>(params.high));
  {% else %}
  {% if mapping in ("asymmetric", "least_error") %}
  zero = select(zero, none, nan > vec4<f32>(0.0));
  {% endif %}
  zeros[i] = pack_{{ zero }}({{ zero }}_numbers(codes(zero, params.low, params.high)));
  {% endif %}
}
