// Floats as integers in the same order, NaN above all. Comparisons of floats would become max, which drops NaN.
const POSITIVE_INFINITY = 0xff800000u;
const NEGATIVE_INFINITY = 0x007fffffu;

fn rank_of(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0xffffffffu;
  }
  if (magnitude == 0u) {
    return 0x80000000u;  // zeros of both signs are equal
  }
  return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

fn is_finite(bits: u32) -> bool {
  return (bits & 0x7f800000u) != 0x7f800000u;
}
