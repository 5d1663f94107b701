{#
A query against int8 codes: its elements as integers of three bytes, times a step of its own.

Dot products are then dot4I8Packed, and exact.
#}
// The bits of the largest exponent; all ones if an element is no number, since integers know no NaN.
fn exponent_bits(x: vec4<f32>) -> u32 {
  let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u);
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// The step of a query of which these are the largest magnitude and exponent.
fn query_step(largest: f32, exponent: u32) -> f32 {
  let finite = max(largest, 1e-30) / 8323072.0;  // 127 * 2^16
  return select(finite, bitcast<f32>(exponent | 0x400000u), exponent == 0x7f800000u);
}

// Four elements in units of `step`: a word of high bytes, one of middle bytes, one of low bytes.
fn query_bytes(x: vec4<f32>, step: f32) -> vec3<u32> {
  let fixed = vec4<i32>(round(x / step));
  let upper_two = (fixed + 128) >> vec4<u32>(8u);
  let high = (upper_two + 128) >> vec4<u32>(8u);
  let middle = upper_two - (high << vec4<u32>(8u));
  let low = fixed - (upper_two << vec4<u32>(8u));
  return vec3<u32>(pack4xI8(high), pack4xI8(middle), pack4xI8(low));
}

// The dot products of the three bytes of four elements with four codes.
fn query_dot(bytes: vec3<u32>, codes: u32) -> vec3<i32> {
  return vec3<i32>(dot4I8Packed(bytes.x, codes), dot4I8Packed(bytes.y, codes), dot4I8Packed(bytes.z, codes));
}

// The sums of such products as one number, in units of the step.
fn query_sum(dots: vec3<i32>) -> f32 {
  return 65536.0 * f32(dots.x) + f32(256 * dots.y + dots.z);
}
