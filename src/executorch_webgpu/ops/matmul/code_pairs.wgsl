{#
Codes of quantized weights as float16 numbers, two at a time: integers below the bits of a power of two are its fraction.

Codes of 4 bits are paired with those four places further, codes of 8 bits with those two further: see split_rows.wgsl.

Inputs:
  bits = 4 | 8: of a code
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
#}
{% if bits == 4 %}
// Codes 0 and 4 of a word.
fn even_pair(word: u32) -> vec2<f16> {
  return bitcast<vec2<f16>>((word & 0x000f000fu) | 0x64006400u) - vec2<f16>({{ 1024 + zero_point }}.0);
}

// Codes 1 and 5, which are a sixteenth of 2^6 each.
fn odd_pair(word: u32) -> vec2<f16> {
  return bitcast<vec2<f16>>((word & 0x00f000f0u) | 0x54005400u) - vec2<f16>({{ 64 + zero_point }}.0);
}
{% else %}
// Codes 0 and 2 of a word to which 128 was added in each byte.
fn byte_pair(biased: u32) -> vec2<f16> {
  return bitcast<vec2<f16>>((biased & 0x00ff00ffu) | 0x64006400u) - vec2<f16>(1152.0);
}
{% endif %}

fn pair_of(number: f32) -> vec2<f16> {
  return vec2<f16>(f16(number));
}

fn pair_bits(pair: vec2<f16>) -> u32 {
  return bitcast<u32>(pair);
}
