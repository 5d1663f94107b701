{#
From numbers to codes, as torch rounds. Four at a time.
#}
// A product that no compiler joins with what is added to it: with one rounding fewer, ties would become other codes.
fn rounded_product(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  return clamp(a * b, vec4<f32>(-3.4028234e38), vec4<f32>(3.4028234e38));
}

// Integers between low and high. What is no number becomes the lowest integer, whose low bytes are 0, as torch casts it.
fn codes(x: vec4<f32>, low: f32, high: f32) -> vec4<i32> {
  let is_nan = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
  let whole = vec4<i32>(clamp(x, vec4<f32>(low), vec4<f32>(min(high, 2147483520.0))));
  return select(whole, vec4<i32>(bitcast<i32>(0x80000000u)), is_nan);
}
