{#
Rotary embedding: the elements of a head turn in pairs, by an angle that grows with the position.

A pair is two neighbours, or elements `half` apart.
#}
// A pair, each of its elements with the cosine and the sine of its own entry of the tables.
fn rotated_pair(pair: vec2<f32>, cosines: vec2<f32>, sines: vec2<f32>) -> vec2<f32> {
  return pair * cosines + vec2<f32>(-pair.y, pair.x) * sines;
}

// With halves, what element i goes with, and its sign: rotated = own * cos + sign * other * sin.
fn partner(i: u32, half: u32) -> u32 {
  return select(i - half, i + half, i < half);
}

fn partner_sign(i: u32, half: u32) -> f32 {
  return select(1.0, -1.0, i < half);
}
