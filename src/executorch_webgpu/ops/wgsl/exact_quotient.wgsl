{#
a / b as IEEE 754 rounds it. Division on a GPU may be off by some units in the last place, which moves what is rounded after it.
#}
// The quotient of two normal numbers, given one that is off by a few units in the last place. What is missing is told by the
// rest of the division, which is small, so that 32 bits hold it although they do not hold the product.
fn corrected_quotient(a: f32, b: f32, estimate: f32) -> f32 {
  let x = bitcast<u32>(a);
  let y = bitcast<u32>(b);
  let z = bitcast<u32>(estimate);
  let exponents = (vec3<u32>(x, y, z) >> vec3<u32>(23u)) & vec3<u32>(0xffu);
  if (any(exponents < vec3<u32>(1u, 1u, 2u)) || any(exponents > vec3<u32>(254u, 254u, 253u))) {
    return estimate;
  }
  let digits = (vec3<u32>(x, y, z) & vec3<u32>(0x7fffffu)) | vec3<u32>(0x800000u);
  var exponent = exponents.z;
  var quotient = digits.z;
  let divisor = i32(digits.y);
  let shift = i32(exponents.x) - i32(exponents.y) - i32(exponent) + 150;
  if (shift < 22 || shift > 25) {
    return estimate;
  }
  // Modulo 2^32; it is a few times the divisor at most.
  var rest = bitcast<i32>((digits.x << u32(shift)) - quotient * digits.y);
  for (var i = 0u; i < 16u && rest < 0; i++) {
    quotient--;
    rest += divisor;
  }
  for (var i = 0u; i < 16u && rest >= divisor; i++) {
    quotient++;
    rest -= divisor;
  }
  if (quotient < 0x800000u) {  // below the power of two of the estimate, where numbers are twice as close
    let next = 2 * rest >= divisor;
    quotient = 2u * quotient + select(0u, 1u, next);
    rest = 2 * rest - select(0, divisor, next);
    exponent--;
  } else if (quotient >= 0x1000000u) {  // above it: the last bit and the rest are less than one unit
    let odd = (quotient & 1u) != 0u;
    quotient >>= 1u;
    if (odd && (rest > 0 || (quotient & 1u) != 0u)) {
      quotient++;
    }
    rest = 0;
    exponent++;
  }
  if (2 * rest > divisor || (2 * rest == divisor && (quotient & 1u) != 0u)) {
    quotient++;
  }
  return bitcast<f32>(((x ^ y) & 0x80000000u) | ((exponent << 23u) + (quotient - 0x800000u)));
}

fn exact_quotient(a: f32, b: f32) -> f32 {
  return corrected_quotient(a, b, a / b);
}
