{#
Quotients and remainders as torch has them, and integers: what WGSL has with too much freedom, or not at all.
#}
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

// The rest of |a| / |b| with the sign of a, exactly: long division in integers, eight bits at a time.
fn fmod_f32(a: f32, b: f32) -> f32 {
  let a_bits = bitcast<u32>(a);
  let a_size = a_bits & 0x7fffffffu;
  let b_size = bitcast<u32>(b) & 0x7fffffffu;
  if (a_size >= 0x7f800000u || b_size > 0x7f800000u || b_size == 0u) {
    return bitcast<f32>(select(a_bits, bitcast<u32>(b), b_size > 0x7f800000u) | 0x7fc00000u);
  }
  if (a_size < b_size) {
    return a;
  }
  let n = parts(a);
  let d = parts(b);
  var rest = n.magnitude % d.magnitude;
  for (var left = u32(n.exponent - d.exponent); left > 0u;) {
    let bits = min(left, 8u);
    rest = (rest << bits) % d.magnitude;
    left -= bits;
  }
  // rest * 2^exponent as a float, subnormal where it must be.
  let sign = a_bits & 0x80000000u;
  if (rest == 0u) {
    return bitcast<f32>(sign);
  }
  let up = countLeadingZeros(rest) - 8u;
  let exponent = d.exponent - i32(up);
  let normal = (u32(exponent) << 23u) | ((rest << up) & 0x7fffffu);
  let size = select(rest << u32(d.exponent - 1), normal, exponent > 0);
  return bitcast<f32>(sign | size);
}

// As Python has it: with the sign of b.
fn remainder_f32(a: f32, b: f32) -> f32 {
  let rest = fmod_f32(a, b);
  return select(rest, rest + b, (bitcast<u32>(rest) & 0x7fffffffu) != 0u && (rest < 0.0) != (b < 0.0));
}

fn fmod(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(fmod_f32(a.x, b.x), fmod_f32(a.y, b.y), fmod_f32(a.z, b.z), fmod_f32(a.w, b.w));
}

fn remainder(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(remainder_f32(a.x, b.x), remainder_f32(a.y, b.y), remainder_f32(a.z, b.z), remainder_f32(a.w, b.w));
}

fn fmod_i32(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
  return a - a / b * b;
}

fn remainder_i32(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
  return a - floor_quotient_i32(a, b) * b;
}

// Integers to the power of integers; they wrap. A negative exponent leaves something of 1 and -1 only.
fn power_i32(base: vec4<i32>, exponent: vec4<i32>) -> vec4<i32> {
  let zero = vec4<i32>(0);
  var square = base;
  var result = vec4<i32>(1);
  for (var rest = max(exponent, zero); any(rest > zero); rest = rest >> vec4<u32>(1u)) {
    result = select(result, result * square, (rest & vec4<i32>(1)) != zero);
    square = square * square;
  }
  let odd = (exponent & vec4<i32>(1)) != zero;
  let unit = select(select(zero, vec4<i32>(1), abs(base) == vec4<i32>(1)), vec4<i32>(-1), (base == vec4<i32>(-1)) & odd);
  return select(result, unit, exponent < zero);
}

// Shifts by less than 0, or by all bits and more, leave no bit, or the sign.
fn shift_left(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
  let inside = (b >= vec4<i32>(0)) & (b < vec4<i32>(32));
  return select(vec4<i32>(0), a << (vec4<u32>(b) & vec4<u32>(31u)), inside);
}

fn shift_right(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
  let inside = (b >= vec4<i32>(0)) & (b < vec4<i32>(32));
  return a >> select(vec4<u32>(31u), vec4<u32>(b) & vec4<u32>(31u), inside);
}
