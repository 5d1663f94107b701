// How an int8 cache keeps a row: scale = max|x| / 127, code = round(x / scale); a row too small for that becomes zeros.
fn int8_scale(largest: f32) -> f32 {
  let scale = largest / 127.0;
  return select(0.0, scale, scale > 1e-36);  // a smaller divisor may count as 0
}

fn int8_divisor(scale: f32) -> f32 {
  return select(1.0, scale, scale > 0.0);
}

// Four codes in a word.
fn int8_codes(x: vec4<f32>) -> u32 {
  let codes = vec4<i32>(clamp(round(x), vec4<f32>(-127.0), vec4<f32>(127.0)));
  let bytes = vec4<u32>(codes) & vec4<u32>(0xffu);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
