@group(0) @binding(2) var<storage, read> scales: array<vec4<f32>>;  // [k / group_size, 4 * scale_quads]

// The scales of four neighbouring rows of weights.
fn four_scales(packed: vec4<f32>) -> vec4<f32> {
  return packed;
}
