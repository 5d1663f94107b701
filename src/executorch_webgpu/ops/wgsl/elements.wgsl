{#
Four consecutive elements of a tensor, a quad, by dtype: how they lie in a buffer, and the numbers in it.

Elements narrower than a word are packed into words. Of each dtype there are the types of a quad, of a word, of four numbers
and of one; how many elements a word has; and functions from a quad or a word to numbers and back. `bits_`, `split_` and
`join_` take elements apart and put them together as they are stored, whatever they mean.
#}
{% for dtype, quad, word, per_word, number in (
  ("float32", "vec4<f32>", "f32", 1, "f32"),
  ("float16", "vec2<u32>", "u32", 2, "f32"),
  ("bfloat16", "vec2<u32>", "u32", 2, "f32"),
  ("int32", "vec4<i32>", "i32", 1, "i32"),
  ("int16", "vec2<u32>", "u32", 2, "i32"),
  ("bool", "vec4<u32>", "u32", 1, "u32"),
  ("uint8", "u32", "u32", 4, "i32"),
  ("int8", "u32", "u32", 4, "i32"),
) %}
alias {{ dtype }}_quad = {{ quad }};
alias {{ dtype }}_word = {{ word }};
alias {{ dtype }}_numbers = vec4<{{ number }}>;
const {{ dtype }}_per_word = {{ per_word }}u;

{% if per_word == 1 %}
fn unpack_{{ dtype }}(quad: {{ quad }}) -> {{ quad }} {
  return quad;
}

// Of element i of a tensor, the word is given.
fn element_{{ dtype }}(word: {{ word }}, i: u32) -> {{ word }} {
  return word;
}

fn pack_{{ dtype }}(numbers: {{ quad }}) -> {{ quad }} {
  return numbers;
}

fn bits_{{ dtype }}(word: {{ word }}, i: u32) -> u32 {
  return bitcast<u32>(word);
}

fn split_{{ dtype }}(quad: {{ quad }}) -> vec4<u32> {
  return bitcast<vec4<u32>>(quad);
}

fn join_{{ dtype }}(bits: vec4<u32>) -> {{ quad }} {
  return bitcast<{{ quad }}>(bits);
}

{% elif per_word == 2 %}
fn bits_{{ dtype }}(word: u32, i: u32) -> u32 {
  return (word >> (i % 2u * 16u)) & 0xffffu;
}

fn split_{{ dtype }}(quad: vec2<u32>) -> vec4<u32> {
  return vec4<u32>(quad.x & 0xffffu, quad.x >> 16u, quad.y & 0xffffu, quad.y >> 16u);
}

fn join_{{ dtype }}(bits: vec4<u32>) -> vec2<u32> {
  return bits.xz | (bits.yw << vec2<u32>(16u));
}

fn pack_{{ dtype }}(numbers: vec4<{{ number }}>) -> vec2<u32> {
  return join_{{ dtype }}(to_{{ dtype }}(numbers));
}

{% else %}
fn element_{{ dtype }}(word: u32, i: u32) -> i32 {
  return unpack_{{ dtype }}(word)[i % 4u];
}

fn bits_{{ dtype }}(word: u32, i: u32) -> u32 {
  return (word >> (i % 4u * 8u)) & 0xffu;
}

fn split_{{ dtype }}(quad: u32) -> vec4<u32> {
  return unpack4xU8(quad);
}

fn join_{{ dtype }}(bits: vec4<u32>) -> u32 {
  return pack4xU8(bits);
}

{% endif %}
{% endfor %}
fn unpack_float16(quad: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(quad.x), unpack2x16float(quad.y));
}

fn element_float16(word: u32, i: u32) -> f32 {
  return unpack2x16float(word)[i % 2u];
}

// Not by pack2x16float, which may round towards zero, and may give anything for a number beyond 65504.
fn to_float16(numbers: vec4<f32>) -> vec4<u32> {
  let bits = bitcast<vec4<u32>>(numbers);
  let size = bits & vec4<u32>(0x7fffffffu);
  // Half of the last bit that stays, less one, and that bit: ties go to the even one. The exponent's bias was 127, is 15.
  let rounded = (size + 0xfffu + ((size >> vec4<u32>(13u)) & vec4<u32>(1u)) - (112u << 23u)) >> vec4<u32>(13u);
  // Below 2^-14, steps are 2^-24, as those of floats from 0.5 to 1.
  let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(size) + 0.5) - 0x3f000000u;
  let finite = select(rounded, small, size < vec4<u32>(0x38800000u));
  let large = select(vec4<u32>(0x7c00u), vec4<u32>(0x7e00u), size > vec4<u32>(0x7f800000u));
  return select(finite, large, size >= vec4<u32>(0x477ff000u)) | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

// A bfloat16 is the upper half of a float32.
fn unpack_bfloat16(quad: vec2<u32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(vec4<u32>(quad.x << 16u, quad.x & 0xffff0000u, quad.y << 16u, quad.y & 0xffff0000u));
}

fn element_bfloat16(word: u32, i: u32) -> f32 {
  return bitcast<f32>(bits_bfloat16(word, i) << 16u);
}

fn to_bfloat16(numbers: vec4<f32>) -> vec4<u32> {
  let bits = bitcast<vec4<u32>>(numbers);
  let rounded = (bits + 0x7fffu + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u))) >> vec4<u32>(16u);
  let nan = (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
  return select(rounded, vec4<u32>(0x7fc0u), nan);
}

fn unpack_int16(quad: vec2<u32>) -> vec4<i32> {
  return vec4<i32>(extractBits(bitcast<i32>(quad.x), 0u, 16u), bitcast<i32>(quad.x) >> 16u,
                   extractBits(bitcast<i32>(quad.y), 0u, 16u), bitcast<i32>(quad.y) >> 16u);
}

fn element_int16(word: u32, i: u32) -> i32 {
  return extractBits(bitcast<i32>(word), i % 2u * 16u, 16u);
}

fn to_int16(numbers: vec4<i32>) -> vec4<u32> {  // integers wrap
  return bitcast<vec4<u32>>(numbers) & vec4<u32>(0xffffu);
}

fn unpack_uint8(quad: u32) -> vec4<i32> {
  return vec4<i32>(unpack4xU8(quad));
}

fn pack_uint8(numbers: vec4<i32>) -> u32 {  // and so do these
  return pack4xU8(vec4<u32>(numbers));
}

fn unpack_int8(quad: u32) -> vec4<i32> {
  return unpack4xI8(quad);
}

fn pack_int8(numbers: vec4<i32>) -> u32 {
  return pack4xI8(numbers);
}
