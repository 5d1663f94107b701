@group(0) @binding(0) var<storage, read> x: array<{{ "vec4<f32>" if quads else "f32" }}>;  // [m, k]
@group(0) @binding(1) var<storage, read> weights: array<{{ "vec4<u32>" if words == 4 else "u32" }}>;  // [n, row_words]
@group(0) @binding(2) var<storage, read> scales: array<vec4<f32>>;  // [k / group_size, 4 * scale_quads]
@group(0) @binding(3) var<storage, read_write> out: array<f32>;  // [m, n]
{% if bias %}
@group(0) @binding(4) var<storage, read> bias: array<f32>;  // [n]
{% endif %}

struct Params {
  m: u32,
  n: u32,
  k: u32,
  group_size: u32,
  row_words: u32,     // u32 words between two rows of weights, eight weights each
  scale_quads: u32,   // vec4s between two rows of scales
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
}
@group(0) @binding(5) var<uniform> params: Params;

{% include "linear_q4/load_x.wgsl" %}

// The weights 0 to 3 and 4 to 7 of a word. They are stored with 8 added.
fn low_half(word: u32) -> vec4<f32> {
  return vec4<f32>(vec4<i32>((vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)) - 8);
}

fn high_half(word: u32) -> vec4<f32> {
  return low_half(word >> 16u);
}
