// Four codes of an int8 cache in a word.
fn int8_codes(x: vec4<f32>) -> u32 {
  let codes = vec4<i32>(clamp(round(x), vec4<f32>(-127.0), vec4<f32>(127.0)));
  let bytes = vec4<u32>(codes) & vec4<u32>(0xffu);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
