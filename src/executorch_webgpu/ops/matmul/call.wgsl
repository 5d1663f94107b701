// What the kernels over packed weights take; packed.py says how these lie. Binding 2 are the scales.
@group(0) @binding(0) var<storage, read> x: array<{{ "vec4<f32>" if quads else "f32" }}>;  // [m, k]
{% if form %}
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;  // [quads, units], a word of four rows each
{% else %}
// [rows, units], four weights of a row each
@group(0) @binding(1) var<storage, read> weights: array<{{ "vec2<u32>" if half else "vec4<f32>" }}>;
{% endif %}
{% for i in range(outputs) %}
@group(0) @binding({{ 3 + i }}) var<storage, read_write> out{{ i }}: array<f32>;  // [m, widths[{{ i }}]]
{% endfor %}
{% if norm %}
@group(0) @binding(6) var<storage, read> norm_weight: array<{{ "vec4<f32>" if quads else "f32" }}>;  // [k]
{% endif %}
{% if bias %}
@group(0) @binding(7) var<storage, read> bias: array<f32>;  // [4 * quads]
{% endif %}
{% if residual %}
@group(0) @binding(8) var<storage, read> residual: array<f32>;  // like out0
{% endif %}

struct Params {
  m: u32,
  k: u32,
  units: u32,         // vec4s along a row of weights
  quads: u32,         // fours of columns, of all matrices
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
{% if form %}
  group: u32,         // units of a group{{ ", as a power of two" if shifted }}
  groups: u32,        // of a row of weights
{% else %}
  last: u32,          // row of weights
{% endif %}
{% if norm %}
  eps: f32,
{% endif %}
  ends: vec4<u32>,    // of each output, the quad after its last one
  widths: vec4<u32>,  // of each output, columns
}
@group(0) @binding(9) var<uniform> params: Params;

{% if form %}
{% include codes ~ ".wgsl" %}
{% include scales ~ ".wgsl" %}

fn group_of(unit: u32) -> u32 {
  return unit {{ ">>" if shifted else "/" }} params.group;
}
{% else %}

fn load_weights(at: u32) -> vec4<f32> {
  {% if half %}
  let packed = weights[at];
  return vec4<f32>(unpack2x16float(packed.x), unpack2x16float(packed.y));
  {% else %}
  return weights[at];
  {% endif %}
}
{% endif %}
