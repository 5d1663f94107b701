@group(0) @binding(2) var<storage, read> scales: array<vec2<u32>>;  // [k / group_size, 4 * scale_quads] of f16

// The scales of four neighbouring rows of weights.
fn four_scales(packed: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(packed[0]), unpack2x16float(packed[1]));
}
