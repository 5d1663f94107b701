@group(0) @binding(2) var<storage, read> scales: array<vec4<u32>>;  // [k / group_size, 4 * scale_quads, 2] of f16

// The scales of four neighbouring rows of weights.
fn four_scales(packed: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(
    unpack2x16float(packed[0])[0], unpack2x16float(packed[1])[0],
    unpack2x16float(packed[2])[0], unpack2x16float(packed[3])[0],
  );
}

// The minima of the same rows.
fn four_mins(packed: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(
    unpack2x16float(packed[0])[1], unpack2x16float(packed[1])[1],
    unpack2x16float(packed[2])[1], unpack2x16float(packed[3])[1],
  );
}
