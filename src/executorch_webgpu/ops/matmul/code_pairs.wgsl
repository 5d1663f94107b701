{#
Eight weights of codes along K as float16 numbers, two at a time by float16 arithmetic. They come in the order of the pairs of a
word, in which split_rows writes x, too: 0 4 1 5 2 6 3 7 of 4 bits, 0 2 1 3 4 6 5 7 of 8.

Inputs:
  bits = 4 | 8: of a code
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  mins = False | True: whether a minimum is added
#}
struct Pairs {
  {% for i in range(4) %}
  pair{{ i }}: vec2<f16>,
  {% endfor %}
}

// Codes as numbers: integers below the bits of a power of two are its fraction.
{% if bits == 4 %}
fn even_pair(word: u32) -> vec2<f16> {
  return bitcast<vec2<f16>>((word & 0x000f000fu) | 0x64006400u) - vec2<f16>({{ 1024 + zero_point }}.0);
}

// Those above them, which are a sixteenth of 2^6 each.
fn odd_pair(word: u32) -> vec2<f16> {
  return bitcast<vec2<f16>>((word & 0x00f000f0u) | 0x54005400u) - vec2<f16>({{ 64 + zero_point }}.0);
}

fn pairs_of(word: u32) -> Pairs {
  return Pairs(even_pair(word), odd_pair(word), even_pair(word >> 8u), odd_pair(word >> 8u));
}
{% else %}
fn byte_pair(biased: u32) -> vec2<f16> {
  return bitcast<vec2<f16>>((biased & 0x00ff00ffu) | 0x64006400u) - vec2<f16>(1152.0);
}

fn pairs_of(word0: u32, word1: u32) -> Pairs {
  let biased0 = word0 ^ 0x80808080u;  // 128 added to each
  let biased1 = word1 ^ 0x80808080u;
  return Pairs(byte_pair(biased0), byte_pair(biased0 >> 8u), byte_pair(biased1), byte_pair(biased1 >> 8u));
}
{% endif %}

fn pair_of(number: f32) -> vec2<f16> {
  return vec2<f16>(f16(number));
}

fn pair_bits(pair: vec2<f16>) -> u32 {
  return bitcast<u32>(pair);
}

// The upper 7 bits of a number: times a code of 4 bits they are exact in float16.
fn upper_seven(number: f32) -> f32 {
  return bitcast<f32>(bitcast<u32>(number) & 0xfffe0000u);
}

// Times the scale of the first four and that of the others. Minima, if there are any, are added.
fn scaled_pairs(pairs: Pairs, scale0: f32, scale1: f32{{ ", min0: f32, min1: f32" if mins }}) -> vec4<u32> {
  let first = pair_of(scale0);
  let second = pair_of(scale1);
  return vec4<u32>(
    {% for i in range(4) %}
    {% set scale, least = ("first", "min0") if i < 2 else ("second", "min1") %}
    {% if mins %}
    pair_bits(fma(pairs.pair{{ i }}, {{ scale }}, pair_of({{ least }}))),
    {% else %}
    pair_bits(pairs.pair{{ i }} * {{ scale }}),
    {% endif %}
    {% endfor %}
  );
}
