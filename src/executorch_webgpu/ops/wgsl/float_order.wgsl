{#
The bits of floats as integers in the same order, their ranks, with NaN above all; 0 is below all ranks.

Drivers turn comparisons of floats into min or max, which drop NaN.
#}
const RANK_OF_INFINITY = 0xff800000u;
const RANK_OF_NEGATIVE_INFINITY = 0x007fffffu;

fn rank_of(bits: u32) -> u32 {
  let number = select(bits, 0u, bits == 0x80000000u);  // zeros of both signs are equal
  let rank = number ^ (bitcast<u32>(bitcast<i32>(number) >> 31u) | 0x80000000u);
  return select(rank, 0xffffffffu, (bits & 0x7fffffffu) > 0x7f800000u);
}

fn bits_of(rank: u32) -> u32 {
  let bits = select(~rank, rank & 0x7fffffffu, rank >= 0x80000000u);
  return select(bits, 0x7fc00000u, rank == 0xffffffffu);  // without branches
}

fn is_finite(bits: u32) -> bool {
  return (bits & 0x7f800000u) != 0x7f800000u;
}
