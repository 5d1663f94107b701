{#
Four consecutive elements of a tensor, a quad, by dtype: how they lie in a buffer, and the numbers in it.

Elements narrower than a word are packed into words. Of each dtype there are the types of a quad, of a word, of four numbers
and of one; how many elements a word has; and functions from a quad or a word to numbers and back.
#}
{% for dtype, quad, word, per_word, number in (
  ("float32", "vec4<f32>", "f32", 1, "f32"),
  ("float16", "vec2<u32>", "u32", 2, "f32"),
  ("int32", "vec4<i32>", "i32", 1, "i32"),
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

{% elif per_word == 4 %}
fn element_{{ dtype }}(word: u32, i: u32) -> i32 {
  return unpack_{{ dtype }}(word)[i % 4u];
}

{% endif %}
{% endfor %}
fn unpack_float16(quad: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(quad.x), unpack2x16float(quad.y));
}

fn element_float16(word: u32, i: u32) -> f32 {
  return unpack2x16float(word)[i % 2u];
}

fn pack_float16(numbers: vec4<f32>) -> vec2<u32> {
  return vec2<u32>(pack2x16float(numbers.xy), pack2x16float(numbers.zw));
}

fn unpack_uint8(quad: u32) -> vec4<i32> {
  return vec4<i32>(unpack4xU8(quad));
}

fn pack_uint8(numbers: vec4<i32>) -> u32 {  // integers wrap
  return pack4xU8(vec4<u32>(numbers));
}

fn unpack_int8(quad: u32) -> vec4<i32> {
  return unpack4xI8(quad);
}

fn pack_int8(numbers: vec4<i32>) -> u32 {
  return pack4xI8(numbers);
}
