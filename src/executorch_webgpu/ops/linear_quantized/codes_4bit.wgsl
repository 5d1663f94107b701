// Eight weights a word, the first one in the lowest bits{{ ", each with %d added" % zero_point if zero_point }}.
// Signed until they are floats: CPUs have an instruction for that.

// The four weights in the low half of a word.
fn four_codes(word: u32) -> vec4<f32> {
  return vec4<f32>(vec4<i32>((vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)) - {{ zero_point }});
}
