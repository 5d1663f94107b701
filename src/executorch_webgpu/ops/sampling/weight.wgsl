// What a token weighs in top-p: an integer, exp((logit - largest) / temperature) * 2^31.
fn weight_of(bits: u32, largest: u32) -> u32 {
  if (!is_finite(bits)) {
    return 0u;
  }
  let most = bitcast<f32>(select(~largest, largest & 0x7fffffffu, largest >= 0x80000000u));
  let scaled = max((bitcast<f32>(bits) - most) * params.inverse_temperature, -100.0);
  return u32(min(exp(scaled), 1.0) * 2147483648.0);
}
