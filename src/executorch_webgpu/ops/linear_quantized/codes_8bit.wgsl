// Four weights a word, signed bytes, the first one lowest.

// The four weights of a word.
fn four_codes(word: u32) -> vec4<f32> {
  return vec4<f32>(vec4<i32>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}
