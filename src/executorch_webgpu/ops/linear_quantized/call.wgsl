// What the routes share. Binding 2 are the scales.
@group(0) @binding(0) var<storage, read> x: array<{{ "vec4<f32>" if quads else "f32" }}>;  // [m, k]
@group(0) @binding(1) var<storage, read> weights: array<{{ "vec4<u32>" if words == 4 else "u32" }}>;  // n rows
@group(0) @binding(3) var<storage, read_write> out: array<f32>;  // [m, n]
{% if bias %}
@group(0) @binding(4) var<storage, read> bias: array<f32>;  // [n]
{% endif %}

struct Params {
  m: u32,
  n: u32,
  k: u32,
  group_size: u32,
  row_stride: u32,    // from a row of weights to the next, in {{ "elements of the array" if aligned else "bytes" }}
  scale_quads: u32,   // from a row of scales to the next, in elements of the array
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
}
@group(0) @binding(5) var<uniform> params: Params;

{% include "linear_quantized/load_x.wgsl" %}
{% include codes ~ ".wgsl" %}
{% include scales ~ ".wgsl" %}

// Load i of the row of weights that begins at `start`, a multiple of row_stride.
{% if aligned %}
fn load_weights(start: u32, i: u32) -> {{ "vec4<u32>" if words == 4 else "u32" }} {
  return weights[start + i];
}
{% else %}
fn load_weights(start: u32, i: u32) -> u32 {
  let byte = start + i * 4u;
  let last = (params.n * params.row_stride - 1u) / 4u;
  let shift = byte % 4u * 8u;
  let low = weights[byte / 4u] >> shift;
  // The bytes that are left of 32 bits; a shift by 32 is not one by 0, so it takes two steps.
  let high = (weights[min(byte / 4u + 1u, last)] << 8u) << (24u - shift);
  return low | high;
}
{% endif %}
