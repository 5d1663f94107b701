{#
How likely a token is beside the most likely one, whose logit is given by its rank. Includes float_order.wgsl.
#}
{% include "wgsl/float_order.wgsl" %}

// Whether a token is so likely as min-p asks: no further below the largest logit than the margin.
fn is_near(bits: u32, largest: u32, margin: f32) -> bool {
  return is_finite(bits) && max(bitcast<f32>(bits) - bitcast<f32>(bits_of(largest)), -0x1.fffffep127) >= margin;
}

// What a token weighs in top-p: an integer, exp((logit - largest) / temperature) * 2^31.
fn weight_of(bits: u32, largest: u32, inverse_temperature: f32) -> u32 {
  if (!is_finite(bits)) {
    return 0u;
  }
  let scaled = max((bitcast<f32>(bits) - bitcast<f32>(bits_of(largest))) * inverse_temperature, -100.0);
  return u32(min(exp(scaled), 1.0) * 2147483648.0);
}
