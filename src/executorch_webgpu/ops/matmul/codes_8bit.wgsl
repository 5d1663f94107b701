// Four weights a word, signed bytes, the first one lowest; as floats in the way of codes_4bit.wgsl.

// The four weights of a word.
fn float_codes(word: u32) -> vec4<f32> {
  let biased = word ^ 0x80808080u;  // 128 added to each
  let bits = (vec4<u32>(biased, biased, biased >> 16u, biased >> 16u) & vec4<u32>(0xffu, 0xff00u, 0xffu, 0xff00u))
    | vec4<u32>(0x4b000000u, 0x47000000u, 0x4b000000u, 0x47000000u);  // 2^23, 2^15
  return bitcast<vec4<f32>>(bits) - vec4<f32>(8388736.0, 32896.0, 8388736.0, 32896.0);
}

// Weight k of four rows, whose words that hold it are given.
fn codes_at(words: vec4<u32>, k: u32) -> vec4<f32> {
  let biased = (words ^ vec4<u32>(0x80808080u)) >> vec4<u32>(k * 8u);
  return bitcast<vec4<f32>>((biased & vec4<u32>(0xffu)) | vec4<u32>(0x4b000000u)) - vec4<f32>(8388736.0);
}
