// What the operator tables call and WGSL does not have, or has with too much freedom.

// ``result``, but NaN where x is NaN. Drivers turn a comparison with x into min or max, which drop NaN, so its bits
// are looked at.
fn keep_nan(x: vec4<f32>, result: vec4<f32>) -> vec4<f32> {
  let magnitude = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
  return select(result, x, magnitude > vec4<u32>(0x7f800000u));
}

fn pack_half(v: vec4<f32>) -> vec2<u32> {
  return vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw));
}

// exp of a negative number only, so that nothing overflows.
fn sigmoid(x: vec4<f32>) -> vec4<f32> {
  let e = exp(-abs(x));
  return select(vec4<f32>(1.0), e, x < vec4<f32>(0.0)) / (1.0 + e);
}

// Beyond 15, tanh is 1 in f32; some drivers compute it from exp and would overflow.
fn bounded_tanh(x: vec4<f32>) -> vec4<f32> {
  return keep_nan(x, tanh(clamp(x, vec4<f32>(-15.0), vec4<f32>(15.0))));
}

// Abramowitz and Stegun 7.1.26, for z >= 0: absolute error below 1.5e-7.
fn erfc_positive(z: vec4<f32>) -> vec4<f32> {
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return p * exp(-z * z);
}

// x times the normal distribution's probability of less than x.
fn gelu_erf(x: vec4<f32>) -> vec4<f32> {
  let tail = 0.5 * erfc_positive(abs(x) * 0.7071067811865476);
  return x * select(tail, 1.0 - tail, x > vec4<f32>(0.0));
}

fn gelu_tanh(x: vec4<f32>) -> vec4<f32> {
  return 0.5 * x * (1.0 + bounded_tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

// As in C: a negative base needs an integer exponent, or gives NaN.
fn power(base: vec4<f32>, exponent: vec4<f32>) -> vec4<f32> {
  let zero = vec4<f32>(0.0);
  let odd = fract(abs(exponent) * 0.5) != zero;
  let pole = (base == zero) & (exponent < zero);  // some drivers' pow gives 0 there
  let size = select(pow(abs(base), exponent), 1.0 / abs(base), pole);
  let nan = bitcast<vec4<f32>>(bitcast<vec4<u32>>(base) | vec4<u32>(0x7fc00000u));
  let negative = select(nan, select(size, -size, odd), exponent == floor(exponent));
  let result = select(size, negative, base < zero);
  return select(result, vec4<f32>(1.0), exponent == zero);
}

// The quotient rounded down. Division may be off by an ulp or two, so the remainder decides.
fn floor_quotient(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  let zero = vec4<f32>(0.0);
  let q = round(a / b);
  let r = a - q * b;
  return q - select(zero, vec4<f32>(1.0), (r != zero) & ((r < zero) != (b < zero)));
}

fn trunc_quotient(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  let q = floor_quotient(abs(a), abs(b));
  return select(q, -q, (a < vec4<f32>(0.0)) != (b < vec4<f32>(0.0)));
}

// Without %, which some drivers get wrong for a negative number.
fn floor_quotient_i32(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
  let zero = vec4<i32>(0);
  let q = a / b;
  return q - select(zero, vec4<i32>(1), (a - q * b != zero) & ((a < zero) != (b < zero)));
}
