{#
Packed weights as gemv and gemm read them (packed.py), and their scales. Bindings 1 and 2. Includes codes and scales.

Inputs:
  bits = 4 | 8 | 16 | 32: of a weight; 4 and 8 are those of codes, 16 and 32 of floats
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min" | None: see scales.wgsl; floats have none
  group_shift = True | False: the units of a group are a power of two, which is given by its exponent
#}
{% if bits <= 8 %}
{% include "matmul/codes.wgsl" %}
{% include "matmul/scales.wgsl" %}

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;  // [quads, units], a word of four rows each
@group(0) @binding(2) var<storage, read> scales: array<FourScales>;  // [quads, groups]

fn group_of(unit: u32, group: u32) -> u32 {
  {% if group_shift %}
  return unit >> group;
  {% else %}
  return unit / group;
  {% endif %}
}
{% elif bits == 16 %}
@group(0) @binding(1) var<storage, read> weights: array<vec2<u32>>;  // [rows, units], four weights of a row each

fn load_weights(at: u32) -> vec4<f32> {
  let packed = weights[at];
  return vec4<f32>(unpack2x16float(packed.x), unpack2x16float(packed.y));
}
{% else %}
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;  // [rows, units], four weights of a row each

fn load_weights(at: u32) -> vec4<f32> {
  return weights[at];
}
{% endif %}
