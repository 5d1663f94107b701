{#
Gumbel noise, by a counter-based generator of random numbers. Includes u64.wgsl.
#}
{% include "sampling/u64.wgsl" %}

// Philox4x32-10: four random words of a counter and a key (Salmon et al., Parallel random numbers: as easy as 1, 2, 3).
fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
  var c = counter;
  var k = key;
  for (var round = 0u; round < 10u; round++) {
    let a = wide_multiply(0xd2511f53u, c.x);
    let b = wide_multiply(0xcd9e8d57u, c.z);
    c = vec4<u32>(b.y ^ c.y ^ k.x, b.x, a.y ^ c.w ^ k.y, a.x);
    k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

// -log(an exponential variate), exact to a few last places also where the variate is small: that is where winners are.
fn gumbel(random: u32) -> f32 {
  let odd = random | 1u;  // so never 0
  // The leading 24 bits, over 2^32, without a rounding that engines might do differently.
  var v = f32(odd) * 0x1p-32;
  if (odd >= 0x1000000u) {
    v = f32(odd >> 8u) * 0x1p-24;
  }
  var e: f32;  // -log(1 - v)
  if (v < 0.5) {
    let s = v / (2.0 - v);
    let t = s * s;
    let tail = 1.0 / 3.0 + t * (1.0 / 5.0 + t * (1.0 / 7.0 + t * (1.0 / 9.0 + t * (1.0 / 11.0 + t * (1.0 / 13.0)))));
    e = 2.0 * s + 2.0 * s * t * tail;
  } else {
    e = -log(1.0 - v);
  }
  return -log(e);
}
