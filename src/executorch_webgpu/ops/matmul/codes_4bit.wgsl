// Eight weights a word, the first one in the lowest bits{{ ", each with %d added" % zero_point if zero_point }}.
// Integers below the bits of a power of two are the fraction of a float: with and, or and subtraction they are numbers,
// which is exact, and faster than converting.

// The four weights in the low half of a word.
fn float_codes(word: u32) -> vec4<f32> {
  let bits = (vec4<u32>(word) & vec4<u32>(0xfu, 0xf0u, 0xf00u, 0xf000u))
    | vec4<u32>(0x4b000000u, 0x49000000u, 0x47000000u, 0x45000000u);  // 2^23, 2^19, 2^15, 2^11
  return bitcast<vec4<f32>>(bits)
    - vec4<f32>({{ 2**23 + zero_point }}.0, {{ 2**19 + zero_point }}.0, {{ 2**15 + zero_point }}.0, {{ 2**11 + zero_point }}.0);
}

// Weight k of four rows, whose words that hold it are given.
fn codes_at(words: vec4<u32>, k: u32) -> vec4<f32> {
  let bits = ((words >> vec4<u32>(k * 4u)) & vec4<u32>(0xfu)) | vec4<u32>(0x4b000000u);
  return bitcast<vec4<f32>>(bits) - vec4<f32>({{ 2**23 + zero_point }}.0);
}
