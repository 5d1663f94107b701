{#
Sine, cosine, tangent and their inverses, to a few units in the last place of float32, whatever the size of the argument.

WGSL's own may be off by 2^-11 within one period, and by anything beyond.
#}
{% include "elementwise/exponential.wgsl" %}

// The first 224 bits of 2 / pi behind the point.
const TWO_OVER_PI = array<u32, 8>(
  0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu, 0u);

// The 64 bits of a * b: the upper word, then the lower one.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let cross = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return vec2<u32>((a >> 16u) * (b >> 16u) + (middle >> 16u) + (cross >> 16u), (cross << 16u) | (low & 0xffffu));
}

// A number as quadrant * pi / 2 + rest, with a rest of at most pi / 4.
struct Angle {
  quadrant: i32,
  rest: f32,
}

// Of a finite number from 2^12 on: its 24 bits times the 96 bits of 2 / pi that count, after Payne and Hanek.
fn large_angle(x: f32) -> Angle {
  let bits = bitcast<u32>(x);
  let mantissa = (bits & 0x7fffffu) | 0x800000u;
  // The first bits of 2 / pi give whole turns; of a number below 2^25, there are zeros before them.
  let skip = i32((bits >> 23u) & 0xffu) - 152;
  let word = skip >> 5u;
  let shift = u32(skip & 31);
  var table = TWO_OVER_PI;
  var part: array<u32, 3>;
  for (var k = 0; k < 3; k++) {
    let at = word + k;
    let first = select(table[clamp(at, 0, 7)], 0u, at < 0);
    let second = select(table[clamp(at + 1, 0, 7)], 0u, at + 1 < 0);
    part[k] = select((first << shift) | (second >> (32u - max(shift, 1u))), first, shift == 0u);
  }
  let low = wide_product(mantissa, part[2]).x;
  let middle = wide_product(mantissa, part[1]);
  let sum = middle.y + low;
  let carry = middle.x + select(0u, 1u, sum < low);
  let high = mantissa * part[0] + carry;
  // The quotient modulo 4: two bits before the point, then 30 in ``high`` and 32 in ``sum``.
  let up = (high >> 29u) & 1u;  // whether a quarter turn more is nearer
  let quadrant = i32((high >> 30u) + up);
  var fraction = vec2<u32>((high << 2u) | (sum >> 30u), sum << 2u);
  let negative = up == 1u;
  if (negative) {  // what is missing to the next one
    fraction = vec2<u32>(~fraction.x, ~fraction.y);
  }
  let zeros = min(countLeadingZeros(fraction.x), 31u);
  let digits = select((fraction.x << zeros) | (fraction.y >> (32u - max(zeros, 1u))), fraction.x, zeros == 0u);
  let size = f32(digits) * bitcast<f32>((127u - 32u - zeros) << 23u) * 1.5707963267948966;
  let rest = select(size, -size, negative);
  let below = (bits >> 31u) == 1u;
  return Angle(select(quadrant, -quadrant, below), select(rest, -rest, below));
}

fn angle(x: f32) -> Angle {
  if (abs(x) >= 4096.0) {
    return large_angle(x);
  }
  // pi / 2 in parts, of which multiples up to 2^12 are exact.
  let n = round(x * 0.6366197723675814);
  return Angle(i32(n), ((x - n * 1.5703125) - n * 4.837512969970703e-4) - n * 7.549789954891882e-8);
}

struct SineCosine {
  sine: vec4<f32>,
  cosine: vec4<f32>,
}

fn sine_and_cosine(x: vec4<f32>) -> SineCosine {
  let finite = select(x, splat(0.0), magnitude_bits(x) >= vec4<u32>(0x7f800000u));
  let a = angle(finite.x);
  let b = angle(finite.y);
  let c = angle(finite.z);
  let d = angle(finite.w);
  let quadrant = vec4<i32>(a.quadrant, b.quadrant, c.quadrant, d.quadrant);
  let rest = vec4<f32>(a.rest, b.rest, c.rest, d.rest);
  let z = rest * rest;
  let sine = rest + rest * z * ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1);
  let p = (2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2;
  let cosine = (1.0 - 0.5 * z) + z * z * p;
  let swapped = (quadrant & vec4<i32>(1)) != vec4<i32>(0);
  let s = select(sine, cosine, swapped);
  let c2 = select(cosine, sine, swapped);
  let s_negative = (quadrant & vec4<i32>(2)) != vec4<i32>(0);
  let c_negative = ((quadrant + 1) & vec4<i32>(2)) != vec4<i32>(0);
  let lost = magnitude_bits(x) >= vec4<u32>(0x7f800000u);
  return SineCosine(nan_where(lost, x, select(s, -s, s_negative)), nan_where(lost, x, select(c2, -c2, c_negative)));
}

fn sine(x: vec4<f32>) -> vec4<f32> {
  return select(sine_and_cosine(x).sine, x, magnitude_bits(x) == vec4<u32>(0u));
}

fn cosine(x: vec4<f32>) -> vec4<f32> {
  return sine_and_cosine(x).cosine;
}

fn tangent(x: vec4<f32>) -> vec4<f32> {
  let found = sine_and_cosine(x);
  return select(found.sine / found.cosine, x, magnitude_bits(x) == vec4<u32>(0u));
}

// arcsin of a size up to 1/2.
fn small_arcsine(x: vec4<f32>) -> vec4<f32> {
  let z = x * x;
  let p = (((4.2163199048e-2 * z + 2.4181311049e-2) * z + 4.5470025998e-2) * z + 7.4953002686e-2) * z + 1.6666752422e-1;
  return x + x * z * p;
}

fn arcsine(x: vec4<f32>) -> vec4<f32> {
  let size = abs(x);
  let root = sqrt(max(0.5 * (1.0 - size), splat(0.0)));
  let large = size > splat(0.5);
  let found = small_arcsine(select(size, root, large));
  let result = select(found, 1.5707963267948966 - 2.0 * found, large);
  return keep_nan(x, nan_where(size > splat(1.0), x, with_sign(result, x)));
}

fn arccosine(x: vec4<f32>) -> vec4<f32> {
  let size = abs(x);
  let root = sqrt(max(0.5 * (1.0 - size), splat(0.0)));
  let large = size > splat(0.5);
  let found = small_arcsine(select(x, root, large));
  let beyond = select(2.0 * found, 3.141592653589793 - 2.0 * found, x < splat(0.0));
  return keep_nan(x, nan_where(size > splat(1.0), x, select(1.5707963267948966 - found, beyond, large)));
}

// arctan of a positive quotient: of a size up to tan(pi / 8), and of what is left of larger ones.
fn arctangent_of(above: vec4<f32>, below: vec4<f32>) -> vec4<f32> {
  let steep = above > below * 2.414213562373095;
  let middle = above > below * 0.4142135623730950;
  let q = select(above, select(above - below, -below, steep), middle)
    / select(below, select(above + below, above, steep), middle);
  let z = q * q;
  let p = ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z - 3.33329491539e-1;
  let base = select(splat(0.0), select(splat(0.7853981633974483), splat(1.5707963267948966), steep), middle);
  return base + (q + q * z * p);
}

fn arctangent(x: vec4<f32>) -> vec4<f32> {
  let result = arctangent_of(min(abs(x), splat(1e30)), splat(1.0));
  return keep_nan(x, with_sign(result, x));
}

// The angle of the point (x, y), between -pi and pi.
fn arctangent2(y: vec4<f32>, x: vec4<f32>) -> vec4<f32> {
  // Two infinities count as equal, and so do two zeros beside the point 0; both sizes are brought away from the edges.
  let endless = is_infinite(x) | is_infinite(y);
  let above = select(abs(y), select(splat(0.0), splat(1.0), is_infinite(y)), endless);
  let below = select(abs(x), select(splat(0.0), splat(1.0), is_infinite(x)), endless);
  let most = max(above, below);
  let factor = select(select(splat(1.0), splat(16777216.0), most < splat(1e-20)), splat(5.9604645e-8), most > splat(1e20));
  let nothing = most == splat(0.0);
  let quotient = arctangent_of(above * factor, select(below * factor, splat(1.0), nothing));
  let turned = select(quotient, 3.141592653589793 - quotient, is_negative(x));
  return keep_nan(x, keep_nan(y, with_sign(turned, y)));
}
