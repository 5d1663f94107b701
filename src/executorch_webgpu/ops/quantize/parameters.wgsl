{#
Scale and zero point of every block from the extremes of its parts, those of four blocks per invocation.

Inputs:
  mapping = "asymmetric" | "least_error" | "symmetric" | "no_clipping" | "magnitude": see parameters.py
  scale = "float32" | "float16" | "bfloat16": dtype
  zero = "int8" | "uint8" | "int16" | "int32" | "float32": dtype
#}
@group(0) @binding(0) var<storage, read> extremes: array<vec4<f32>>;  // [blocks, parts]: least, largest, 1 if one is NaN
@group(0) @binding(1) var<storage, read_write> scales: array<{{ scale }}_quad>;
@group(0) @binding(2) var<storage, read_write> zeros: array<{{ zero }}_quad>;

struct Params {
  blocks: u32,
  parts: u32,
  range: vec4<f32>,  // see mapping.wgsl
}
@group(0) @binding(3) var<uniform> params: Params;

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "quantize/mapping.wgsl" %}

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
    let first = min(i * 4u + j, params.blocks - 1u) * params.parts;
    var found = extremes[first];
    for (var part = 1u; part < params.parts; part++) {
      let other = extremes[first + part];
      found = vec4<f32>(min(found.x, other.x), max(found.y, other.y), max(found.z, other.z), 0.0);
    }
    let of_block = parameters_of(found.xyz, params.range);
    scale[j] = of_block.x;
    zero[j] = of_block.y;
    nan[j] = found.z;
  }
  scales[i] = pack_{{ scale }}({{ scale }}_numbers(with_nan(scale, nan)));
  zeros[i] = pack_{{ zero }}({{ zero }}_numbers(stored_zeros(zero, nan, params.range)));
}
