{#
What the operator tables call and WGSL does not have, or has with too much freedom.
#}
// ``result``, but NaN where x is NaN. Drivers turn a comparison with x into min or max, which drop NaN, so its bits
// are looked at.
fn keep_nan(x: vec4<f32>, result: vec4<f32>) -> vec4<f32> {
  let magnitude = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
  return select(result, x, magnitude > vec4<u32>(0x7f800000u));
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

// As in C: a negative base needs an integer exponent, or gives NaN, and so does a NaN, unless the other number decides.
fn power(base: vec4<f32>, exponent: vec4<f32>) -> vec4<f32> {
  let zero = vec4<f32>(0.0);
  let odd = fract(abs(exponent) * 0.5) != zero;
  let pole = (base == zero) & (exponent < zero);  // some drivers' pow gives 0 there
  let size = select(pow(abs(base), exponent), 1.0 / abs(base), pole);
  let nan = bitcast<vec4<f32>>(bitcast<vec4<u32>>(base) | vec4<u32>(0x7fc00000u));
  let negative = select(nan, select(size, -size, odd), exponent == floor(exponent));
  let result = keep_nan(exponent, keep_nan(base, select(size, negative, base < zero)));
  return select(result, vec4<f32>(1.0), (exponent == zero) | (base == vec4<f32>(1.0)));
}

// A finite float32 that is not 0 as magnitude * 2^exponent.
struct Parts {
  magnitude: u32,  // below 2^24
  exponent: i32,
}

fn parts(v: f32) -> Parts {
  let bits = bitcast<u32>(v);
  let exponent = (bits >> 23u) & 0xffu;
  let fraction = bits & 0x7fffffu;
  return Parts(select(fraction | 0x800000u, fraction, exponent == 0u), i32(max(exponent, 1u)));
}

// The whole part of |a| / |b| below 2^24 in x, and in y whether a rest is left: 0 no, 1 yes, 2 so large a one that the
// quotient, correctly rounded, is the next integer. A quotient of 2^24 or more gives 0xffffffff. Division on a GPU may be
// off by some ulps, and so may a rest that is computed in floats, so this is long division in integers.
fn whole_quotient(a: f32, b: f32) -> vec2<u32> {
  let n = parts(a);
  let d = parts(b);
  let shift = n.exponent - d.exponent;
  if (n.magnitude == 0u || shift < 0) {  // a divisor with the larger exponent has its highest bit, so it is larger
    return vec2<u32>(0u, select(1u, 0u, n.magnitude == 0u));
  }
  if (shift > 24) {  // and so has such a dividend
    return vec2<u32>(0xffffffffu, 0u);
  }
  let divisor = d.magnitude;
  var quotient = n.magnitude / divisor;
  var rest = n.magnitude - quotient * divisor;
  for (var left = u32(shift); left > 0u;) {
    let bits = min(left, 8u);
    if (quotient >= (0x1000000u >> bits)) {
      return vec2<u32>(0xffffffffu, 0u);
    }
    let wide = rest << bits;
    let digits = wide / divisor;
    quotient = (quotient << bits) + digits;
    rest = wide - digits * divisor;
    left -= bits;
  }
  if (rest == 0u || quotient >= 0x1000000u) {
    return vec2<u32>(select(quotient, 0xffffffffu, quotient >= 0x1000000u), 0u);
  }
  // Floats just below the next integer are 2^(k - 23) apart, where 2^k is in the quotient: within half of that the
  // quotient is rounded up, and at half of it to the even one.
  let k = 31u - countLeadingZeros(max(quotient, 1u));
  let missing = divisor - rest;
  let even_below = k == 23u && quotient % 2u == 0u && missing * 2u == divisor;
  let close = quotient > 0u && missing <= (divisor >> (24u - k)) && !even_below;
  return vec2<u32>(quotient, select(1u, 2u, close));
}

fn is_whole_quotient(a: f32, b: f32) -> bool {
  let x = bitcast<u32>(a) & 0x7fffffffu;
  let y = bitcast<u32>(b) & 0x7fffffffu;
  return x < 0x7f800000u && y > 0u && y < 0x7f800000u;
}

// a / b rounded down, as torch does it: by the exact rest, so that 1 over the float next to 0.1 is 9. An infinite dividend
// leaves no number as its rest.
fn floor_quotient_f32(a: f32, b: f32) -> f32 {
  let a_bits = bitcast<u32>(a);
  let b_bits = bitcast<u32>(b);
  let opposite = ((a_bits ^ b_bits) >> 31u) != 0u;
  if (!is_whole_quotient(a, b)) {
    if ((b_bits & 0x7fffffffu) == 0u) {
      return a / b;
    }
    if ((a_bits & 0x7fffffffu) >= 0x7f800000u || (b_bits & 0x7fffffffu) > 0x7f800000u) {
      return bitcast<f32>(a_bits | 0x7fc00000u);
    }
    return select(0.0, -1.0, opposite && (a_bits & 0x7fffffffu) != 0u);  // over infinity
  }
  let found = whole_quotient(a, b);
  if (found.x == 0xffffffffu) {
    return floor(a / b);
  }
  let size = f32(found.x);
  return select(size, -size - select(0.0, 1.0, found.y != 0u), opposite);
}

// a / b rounded to a float and then towards zero, as torch does it: 1 over the float next to 0.1 is 10.
fn trunc_quotient_f32(a: f32, b: f32) -> f32 {
  if (!is_whole_quotient(a, b)) {
    return trunc(a / b);
  }
  let found = whole_quotient(a, b);
  if (found.x == 0xffffffffu) {
    return trunc(a / b);
  }
  let size = f32(found.x + select(0u, 1u, found.y == 2u));
  return select(size, -size, (bitcast<u32>(a) ^ bitcast<u32>(b)) >> 31u != 0u);
}

fn floor_quotient(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(floor_quotient_f32(a.x, b.x), floor_quotient_f32(a.y, b.y),
                   floor_quotient_f32(a.z, b.z), floor_quotient_f32(a.w, b.w));
}

fn trunc_quotient(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(trunc_quotient_f32(a.x, b.x), trunc_quotient_f32(a.y, b.y),
                   trunc_quotient_f32(a.z, b.z), trunc_quotient_f32(a.w, b.w));
}

// Without %, which some drivers get wrong for a negative number.
fn floor_quotient_i32(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
  let zero = vec4<i32>(0);
  let q = a / b;
  return q - select(zero, vec4<i32>(1), (a - q * b != zero) & ((a < zero) != (b < zero)));
}
