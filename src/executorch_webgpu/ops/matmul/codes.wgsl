{#
Codes of quantized weights in a word, as floats without their scale.

A word has eight codes of 4 bits, or four signed ones of 8, the first one in the lowest bits.

Inputs:
  bits = 4 | 8: of a code
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
#}
// Four codes as integers, which are signed until they are floats: CPUs have an instruction for that. Of 4 bits, those in
// the low half of the word.
fn convert_codes(word: u32) -> vec4<f32> {
  {% if bits == 4 %}
  return vec4<f32>(vec4<i32>((vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)) - {{ zero_point }});
  {% else %}
  return vec4<f32>(vec4<i32>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
  {% endif %}
}

// The same codes without a conversion: integers below the bits of a power of two are the fraction of a float. With and, or
// and subtraction they are numbers, which is exact, and faster on a GPU.
fn four_codes(word: u32) -> vec4<f32> {
  {% if bits == 4 %}
  let bits = (vec4<u32>(word) & vec4<u32>(0xfu, 0xf0u, 0xf00u, 0xf000u))
    | vec4<u32>(0x4b000000u, 0x49000000u, 0x47000000u, 0x45000000u);  // 2^23, 2^19, 2^15, 2^11
  return bitcast<vec4<f32>>(bits)
    - vec4<f32>({{ 2**23 + zero_point }}.0, {{ 2**19 + zero_point }}.0, {{ 2**15 + zero_point }}.0, {{ 2**11 + zero_point }}.0);
  {% else %}
  let biased = word ^ 0x80808080u;  // 128 added to each
  let bits = (vec4<u32>(biased, biased, biased >> 16u, biased >> 16u) & vec4<u32>(0xffu, 0xff00u, 0xffu, 0xff00u))
    | vec4<u32>(0x4b000000u, 0x47000000u, 0x4b000000u, 0x47000000u);  // 2^23, 2^15
  return bitcast<vec4<f32>>(bits) - vec4<f32>(8388736.0, 32896.0, 8388736.0, 32896.0);
  {% endif %}
}

// Code k of four rows, whose words that hold it are given.
fn codes_at(words: vec4<u32>, k: u32) -> vec4<f32> {
  {% if bits == 4 %}
  let bits = ((words >> vec4<u32>(k * 4u)) & vec4<u32>(0xfu)) | vec4<u32>(0x4b000000u);
  return bitcast<vec4<f32>>(bits) - vec4<f32>({{ 2**23 + zero_point }}.0);
  {% else %}
  let biased = (words ^ vec4<u32>(0x80808080u)) >> vec4<u32>(k * 8u);
  return bitcast<vec4<f32>>((biased & vec4<u32>(0xffu)) | vec4<u32>(0x4b000000u)) - vec4<f32>(8388736.0);
  {% endif %}
}

// The same by a conversion, for what has no fast way around it: CPUs take three instructions for four codes.
fn converted_codes_at(words: vec4<u32>, k: u32) -> vec4<f32> {
  {% if bits == 4 and zero_point == 8 %}
  // With its highest bit flipped, a code is its difference from 8 in two's complement.
  return vec4<f32>(vec4<i32>((words ^ vec4<u32>(0x88888888u)) << vec4<u32>(28u - k * 4u)) >> vec4<u32>(28u));
  {% elif bits == 4 %}
  return vec4<f32>(vec4<i32>((words >> vec4<u32>(k * 4u)) & vec4<u32>(15u)));
  {% else %}
  return vec4<f32>(vec4<i32>(words << vec4<u32>(24u - k * 8u)) >> vec4<u32>(24u));
  {% endif %}
}
