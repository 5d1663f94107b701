{#
Exponentials, logarithms, and what is made of them, to a few units in the last place of float32.

WGSL's own may be off by 2^-21, or by more the larger the argument is. Powers of two are applied as bits of exponents, and
logarithms read subnormal numbers as integers, since GPUs may flush these to 0. NaN is looked for by its bits: drivers turn
comparisons into min and max, which drop it.
#}
fn splat(x: f32) -> vec4<f32> {
  return vec4<f32>(x);
}

fn magnitude_bits(x: vec4<f32>) -> vec4<u32> {
  return bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
}

fn is_nan(x: vec4<f32>) -> vec4<bool> {
  return magnitude_bits(x) > vec4<u32>(0x7f800000u);
}

fn is_infinite(x: vec4<f32>) -> vec4<bool> {
  return magnitude_bits(x) == vec4<u32>(0x7f800000u);
}

// ``result``, but NaN where x is NaN.
fn keep_nan(x: vec4<f32>, result: vec4<f32>) -> vec4<f32> {
  return select(result, x, is_nan(x));
}

// NaN and infinity made of a number that the compiler does not know, since it refuses constants of these.
fn nan_where(holds: vec4<bool>, x: vec4<f32>, result: vec4<f32>) -> vec4<f32> {
  return select(result, bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) | vec4<u32>(0x7fc00000u)), holds);
}

fn infinity(x: vec4<f32>) -> vec4<f32> {
  return bitcast<vec4<f32>>((bitcast<vec4<u32>>(x) & vec4<u32>(0u)) | vec4<u32>(0x7f800000u));
}

// The size of ``size`` with the sign of ``sign``, -0 included.
fn with_sign(size: vec4<f32>, sign: vec4<f32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(magnitude_bits(size) | (bitcast<vec4<u32>>(sign) & vec4<u32>(0x80000000u)));
}

fn is_negative(x: vec4<f32>) -> vec4<bool> {
  return (bitcast<vec4<u32>>(x) >> vec4<u32>(31u)) != vec4<u32>(0u);
}

// 2^n for n from -126 to 127.
fn power_of_two(n: vec4<i32>) -> vec4<f32> {
  return bitcast<vec4<f32>>((n + 127) << vec4<u32>(23u));
}

// x * 2^n for n from -252 to 254.
fn scaled(x: vec4<f32>, n: vec4<i32>) -> vec4<f32> {
  let half = n >> vec4<u32>(1u);
  return x * power_of_two(half) * power_of_two(n - half);
}

// e^r - 1 for |r| up to 0.35.
fn small_expm1(r: vec4<f32>) -> vec4<f32> {
  let p = ((((1.9875691500e-4 * r + 1.3981999507e-3) * r + 8.3334519073e-3) * r + 4.1665795894e-2) * r
    + 1.6666665459e-1) * r + 5.0000001201e-1;
  return r + r * r * p;
}

// A number as n * log(2) + rest. log(2) is taken in two parts, of which n times the first is exact.
struct Reduced {
  n: vec4<i32>,
  rest: vec4<f32>,
}

fn by_log2(x: vec4<f32>, more: vec4<f32>) -> Reduced {
  let n = round((x + more) * 1.4426950408889634);
  return Reduced(vec4<i32>(n), ((x - n * 0.693359375) + more) + n * 2.12194440e-4);
}

// e^(x + more), where the sum would lose digits of ``more``, which is small.
fn exp_of_sum(x: vec4<f32>, more: vec4<f32>) -> vec4<f32> {
  let found = by_log2(clamp(x, splat(-110.0), splat(90.0)), more);
  return scaled(1.0 + small_expm1(found.rest), found.n);
}

fn exponential(x: vec4<f32>) -> vec4<f32> {
  return keep_nan(x, exp_of_sum(x, splat(0.0)));
}

fn exponential2(x: vec4<f32>) -> vec4<f32> {
  let bounded = clamp(x, splat(-160.0), splat(130.0));
  let n = round(bounded);
  return keep_nan(x, scaled(1.0 + small_expm1((bounded - n) * 0.6931471805599453), vec4<i32>(n)));
}

fn expm1(x: vec4<f32>) -> vec4<f32> {
  let found = by_log2(clamp(x, splat(-30.0), splat(90.0)), splat(0.0));
  let less = 1.0 - power_of_two(-min(found.n, vec4<i32>(126)));
  let result = scaled(small_expm1(found.rest) + less, found.n);
  return keep_nan(x, select(result, x, magnitude_bits(x) < vec4<u32>(0x33000000u)));  // below 2^-25, -0 too
}

// log(1 + f) - f for f from -0.3 to 0.42.
fn log1p_rest(f: vec4<f32>) -> vec4<f32> {
  let p = (((((((7.0376836292e-2 * f - 1.1514610310e-1) * f + 1.1676998740e-1) * f - 1.2420140846e-1) * f
    + 1.4249322787e-1) * f - 1.6668057665e-1) * f + 2.0000714765e-1) * f - 2.4999993993e-1) * f + 3.3333331174e-1;
  return f * f * (f * p - 0.5);
}

// A positive number as (1 + fraction) * 2^exponent, where 1 + fraction is from sqrt(1/2) to sqrt(2).
struct Binary {
  exponent: vec4<f32>,
  fraction: vec4<f32>,
}

fn binary_parts(x: vec4<f32>) -> Binary {
  let bits = magnitude_bits(x);
  let small = bits < vec4<u32>(0x00800000u);
  let normal = select(bits, bitcast<vec4<u32>>(vec4<f32>(bits)), small);  // a subnormal is its bits * 2^-149
  let from_half = normal - vec4<u32>(0x3f3504f3u);
  let exponent = bitcast<vec4<i32>>(from_half) >> vec4<u32>(23u);
  let fraction = bitcast<vec4<f32>>((from_half & vec4<u32>(0x007fffffu)) + vec4<u32>(0x3f3504f3u)) - 1.0;
  return Binary(vec4<f32>(select(exponent, exponent - 149, small)), fraction);
}

// What a logarithm makes of numbers that are not positive and finite.
fn log_edges(x: vec4<f32>, result: vec4<f32>) -> vec4<f32> {
  let pole = select(result, -1.0 / abs(x), magnitude_bits(x) == vec4<u32>(0u));
  let top = select(pole, x, is_infinite(x));
  return keep_nan(x, nan_where(is_negative(x) & (magnitude_bits(x) != vec4<u32>(0u)), x, top));
}

fn logarithm(x: vec4<f32>) -> vec4<f32> {
  let b = binary_parts(x);
  let result = b.exponent * 0.693359375 + (b.fraction + (log1p_rest(b.fraction) - b.exponent * 2.12194440e-4));
  return log_edges(x, result);
}

fn logarithm2(x: vec4<f32>) -> vec4<f32> {
  let b = binary_parts(x);
  return log_edges(x, b.exponent + (b.fraction + log1p_rest(b.fraction)) * 1.4426950408889634);
}

fn logarithm10(x: vec4<f32>) -> vec4<f32> {
  let b = binary_parts(x);
  let rest = (b.fraction + log1p_rest(b.fraction)) * 0.4342944819032518 + b.exponent * 2.4874566398e-4;
  return log_edges(x, b.exponent * 0.30078125 + rest);
}

fn log1p(x: vec4<f32>) -> vec4<f32> {
  let near = (x > splat(-0.29)) & (x < splat(0.41));
  return select(logarithm(1.0 + x), select(x + log1p_rest(x), x, magnitude_bits(x) < vec4<u32>(0x33000000u)), near);
}

fn upper_twelve(x: vec4<f32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xfffff000u));
}

// As in C: a negative base needs an integer exponent, or gives NaN, and so does a NaN, unless the other number decides.
// exponent * log(base) is kept in two parts, since an error in it is one of the result's digits. They are cut off by bits, and
// no sum is taken apart again by what was added: a driver finds 0 in (a - (a + b)) + b.
fn power(base: vec4<f32>, exponent: vec4<f32>) -> vec4<f32> {
  let b = binary_parts(base);
  let curve = log1p_rest(b.fraction);
  let near = b.fraction + curve;
  let coarse = select(round(near * 4096.0) * 0.000244140625, upper_twelve(near), b.exponent == splat(0.0));
  let high = b.exponent * 0.693359375 + coarse;  // exact: multiples of 2^-12
  let low = ((b.fraction - coarse) + curve) - b.exponent * 2.12194440e-4;
  let bounded = clamp(exponent, splat(-1e30), splat(1e30));
  let y1 = upper_twelve(bounded);
  let h1 = upper_twelve(high);
  let product = y1 * h1;  // exact: 12 bits each
  let more = (y1 * (high - h1) + (bounded - y1) * high) + bounded * low;
  let inside = abs(product) < splat(120.0);
  var size = exp_of_sum(product, select(splat(0.0), more, inside));
  let zero = splat(0.0);
  let no_base = magnitude_bits(base) == vec4<u32>(0u);
  let large_base = is_infinite(base);
  let reciprocal = no_base != (exponent < zero);  // whether 0 or infinity becomes 0
  size = select(size, select(infinity(base), zero, reciprocal), no_base | large_base);
  let one = magnitude_bits(base) == vec4<u32>(0x3f800000u);
  size = select(size, splat(1.0), one | (magnitude_bits(exponent) == vec4<u32>(0u)));
  let odd = (fract(abs(exponent) * 0.5) != zero) & !is_infinite(exponent);
  let whole_exponent = (exponent == floor(exponent)) | is_infinite(exponent);
  let negative = nan_where(!whole_exponent & !no_base & !large_base, base, select(size, -size, odd & whole_exponent));
  let result = keep_nan(exponent, keep_nan(base, select(size, negative, is_negative(base))));
  let decided = (magnitude_bits(exponent) == vec4<u32>(0u)) | (base == splat(1.0));
  return select(result, splat(1.0), decided);
}

// Both are multiplied by a power of two that brings the larger one to 2 and more, so that no square overflows. A quotient would
// not do: GPUs take reciprocals of large numbers for 0. Their root of a 4 may be a little more than 2.
fn hypotenuse(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  let most = max(abs(a), abs(b));
  let least = min(abs(a), abs(b));
  let exponent = clamp(bitcast<vec4<u32>>(most) >> vec4<u32>(23u), vec4<u32>(2u), vec4<u32>(254u));
  let power = bitcast<vec4<f32>>((vec4<u32>(255u) - exponent) << vec4<u32>(23u));
  let inverse = bitcast<vec4<f32>>((exponent - vec4<u32>(1u)) << vec4<u32>(23u));
  let x = most * power;
  let y = least * power;
  let size = select(sqrt(x * x + y * y), x, y < 0.000244 * x) * inverse;
  return select(keep_nan(a, keep_nan(b, size)), infinity(a), is_infinite(a) | is_infinite(b));
}

// exp of a negative number only, so that nothing overflows.
fn sigmoid(x: vec4<f32>) -> vec4<f32> {
  let e = exponential(-abs(x));
  return select(splat(1.0), e, x < splat(0.0)) / (1.0 + e);
}

fn softplus(x: vec4<f32>) -> vec4<f32> {
  return keep_nan(x, max(x, splat(0.0)) + log1p(exponential(-abs(x))));
}

// x * tanh(softplus(x)), which is 1 beyond 20.
fn mish(x: vec4<f32>) -> vec4<f32> {
  let e = exponential(min(x, splat(20.0)));
  let n = e * (e + 2.0);
  return keep_nan(x, x * (n / (n + 2.0)));
}

fn hyperbolic_tangent(x: vec4<f32>) -> vec4<f32> {
  let e = expm1(2.0 * min(abs(x), splat(10.0)));
  return keep_nan(x, with_sign(e / (e + 2.0), x));
}

// x / 2 of a normal number, by its exponent: of 0.5 * x * x a driver may multiply the squares first, which overflow.
fn half(x: vec4<f32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) - vec4<u32>(0x800000u));
}

fn hyperbolic_sine(x: vec4<f32>) -> vec4<f32> {
  let size = abs(x);
  let e = expm1(min(size, splat(20.0)));
  let root = exponential(0.5 * size);
  return keep_nan(x, with_sign(select(0.5 * (e + e / (e + 1.0)), half(root) * root, size > splat(10.0)), x));
}

fn hyperbolic_cosine(x: vec4<f32>) -> vec4<f32> {
  let size = abs(x);
  let e = exponential(min(size, splat(20.0)));
  let root = exponential(0.5 * size);
  return keep_nan(x, select(0.5 * e + 0.5 / e, half(root) * root, size > splat(10.0)));
}

fn inverse_hyperbolic_sine(x: vec4<f32>) -> vec4<f32> {
  let size = abs(x);
  let square = min(size, splat(1e9)) * min(size, splat(1e9));
  let near = log1p(size + square / (1.0 + sqrt(1.0 + square)));
  let result = select(near, logarithm(size) + 0.6931471805599453, size > splat(1e9));
  return keep_nan(x, with_sign(result, x));
}

fn inverse_hyperbolic_cosine(x: vec4<f32>) -> vec4<f32> {
  let t = min(x, splat(1e9)) - 1.0;
  let near = log1p(t + sqrt(max(t * (t + 2.0), splat(0.0))));
  let result = select(near, logarithm(x) + 0.6931471805599453, x > splat(1e9));
  return keep_nan(x, nan_where(x < splat(1.0), x, result));
}

fn inverse_hyperbolic_tangent(x: vec4<f32>) -> vec4<f32> {
  let size = abs(x);
  return keep_nan(x, nan_where(size > splat(1.0), x, with_sign(0.5 * log1p(2.0 * size / (1.0 - size)), x)));
}

// The error function by a polynomial of x² up to 1, and beyond by erfc. Coefficients are fitted to the least relative error,
// which is below 4e-8.
fn small_erf(x: vec4<f32>) -> vec4<f32> {
  let z = x * x;
  let p = (((((7.88908553e-5 * z - 8.0208311e-4) * z + 5.1895342e-3) * z - 2.6854444e-2) * z + 0.112836002) * z
    - 0.376126271) * z + 1.12837917;
  return x * p;
}

// 1 - erf(x) for x from 1: t * e^(-x² + a polynomial of t = 1 / (1 + x / 2)). x² is kept in two parts.
fn large_erfc(x: vec4<f32>) -> vec4<f32> {
  let t = 1.0 / (1.0 + 0.5 * x);
  let p = ((((((-0.150709474 * t + 0.670023891) * t - 0.94197203) * t + 0.342290208) * t - 0.0501401161) * t
    + 0.399386083) * t + 0.997580792) * t - 1.26541173;
  let first = upper_twelve(x);
  let rest = p - (x - first) * (x + first);
  return t * exp_of_sum(-first * first, rest);
}

fn erfc(x: vec4<f32>) -> vec4<f32> {
  let size = abs(x);
  let tail = large_erfc(clamp(size, splat(1.0), splat(11.0)));
  let result = select(select(tail, 2.0 - tail, x < splat(0.0)), 1.0 - small_erf(x), size < splat(1.0));
  return keep_nan(x, result);
}

fn error_function(x: vec4<f32>) -> vec4<f32> {
  let size = abs(x);
  let tail = large_erfc(clamp(size, splat(1.0), splat(11.0)));
  return keep_nan(x, select(with_sign(1.0 - tail, x), small_erf(x), size < splat(1.0)));
}

// x times the normal distribution's probability of less than x.
fn gelu_erf(x: vec4<f32>) -> vec4<f32> {
  return x * (0.5 * erfc(-0.7071067811865476 * x));
}

fn gelu_tanh(x: vec4<f32>) -> vec4<f32> {
  // (1 + tanh(z)) / 2 is sigmoid(2z), which does not cancel.
  let z = clamp(x, splat(-1e10), splat(1e10));
  return keep_nan(x, x * sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z)));
}
