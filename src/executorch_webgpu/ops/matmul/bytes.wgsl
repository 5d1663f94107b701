{#
Eight numbers of x as whole numbers of two or three bytes, times codes of 4 bits: four bytes times four codes take an instruction,
and nothing is rounded before the sum of eight products. With three bytes that takes half the instructions of floats.

The largest of the eight has all bits. With three bytes, what is lost of the others is what float32 loses of the sum; with two,
less than float16 loses of the largest.

Inputs:
  zero_point = 8 | 0: what is subtracted from each code
  x_bytes = 3 | 2: of a whole number, with its sign
#}
{% set most = 8388600 if x_bytes == 3 else 32760 %}
{% set sum, unit = ("x.low.z", "x.low.w") if x_bytes == 3 else ("x.low.x", "x.low.y") %}
struct Whole {
{% if x_bytes == 3 %}
  high: vec4<u32>,  // bytes of those that even codes are for, and odd ones; first the highest, which are signed, then the middle ones
  low: vec4<u32>,   // the lowest bytes; what the sum of all takes from a product, or the sum; what 1 stands for
{% else %}
  high: vec4<u32>,  // bytes of those that even codes are for, and odd ones; first the higher, which are signed, then the lower ones
  low: vec2<u32>,   // what the sum of all takes from a product, or the sum; what 1 stands for
{% endif %}
}

// Bytes of four numbers, from bit `shift` on.
fn bytes_of(x: vec4<u32>, shift: u32) -> u32 {
  let bytes = (x >> vec4<u32>(shift)) & vec4<u32>(0xffu);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

fn whole_of(x0: vec4<f32>, x1: vec4<f32>) -> Whole {
  // As integers, the bits of what is not finite are the largest.
  let bits = max(bitcast<vec4<u32>>(x0) & vec4<u32>(0x7fffffffu), bitcast<vec4<u32>>(x1) & vec4<u32>(0x7fffffffu));
  let most = max(max(bits.x, bits.y), max(bits.z, bits.w));
  let top = bitcast<f32>(most);
  let factor = select(0.0, {{ most }}.0 / top, top > 1e-30 && most < 0x7f800000u);
  let y0 = vec4<i32>(round(x0 * factor));
  let y1 = vec4<i32>(round(x1 * factor));
  let both = y0 + y1;
  let even = bitcast<vec4<u32>>(vec4<i32>(y0.x, y0.z, y1.x, y1.z));
  let odd = bitcast<vec4<u32>>(vec4<i32>(y0.y, y0.w, y1.y, y1.w));
  let sum = bitcast<u32>({{ -zero_point if zero_point else 1 }} * (both.x + both.y + both.z + both.w));
  let unit = select(most, bitcast<u32>(top * {{ 1 / most }}), most < 0x7f800000u);
{% if x_bytes == 3 %}
  return Whole(
    vec4<u32>(bytes_of(even, 16u), bytes_of(odd, 16u), bytes_of(even, 8u), bytes_of(odd, 8u)),
    vec4<u32>(bytes_of(even, 0u), bytes_of(odd, 0u), sum, unit),
  );
{% else %}
  return Whole(
    vec4<u32>(bytes_of(even, 8u), bytes_of(odd, 8u), bytes_of(even, 0u), bytes_of(odd, 0u)), vec2<u32>(sum, unit),
  );
{% endif %}
}

// The codes of a word times eight numbers.
fn product_of(word: u32, x: Whole) -> i32 {
  let even = word & 0x0f0f0f0fu;
  let odd = (word >> 4u) & 0x0f0f0f0fu;
  let high = dot4I8Packed(even, x.high.x) + dot4I8Packed(odd, x.high.y);
{% if x_bytes == 3 %}
  let middle = dot4U8Packed(even, x.high.z) + dot4U8Packed(odd, x.high.w);
  let low = dot4U8Packed(even, x.low.x) + dot4U8Packed(odd, x.low.y);
  return (high << 16u) + bitcast<i32>((middle << 8u) + low);
{% else %}
  let low = dot4U8Packed(even, x.high.z) + dot4U8Packed(odd, x.high.w);
  return (high << 8u) + bitcast<i32>(low);
{% endif %}
}

// The codes of four rows times eight numbers, without the weights' scales.
fn products_of(words: vec4<u32>, x: Whole) -> vec4<f32> {
  let products = vec4<i32>(
    product_of(words.x, x), product_of(words.y, x), product_of(words.z, x), product_of(words.w, x),
  );
  return bitcast<f32>({{ unit }}) * vec4<f32>(products{{ " + bitcast<i32>(%s)" % sum if zero_point }});
}

// The sum of the eight numbers, with a zero point of 0.
fn sum_of(x: Whole) -> f32 {
  return bitcast<f32>({{ unit }}) * f32(bitcast<i32>({{ sum }}));
}
