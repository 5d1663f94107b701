{#
Numbers as float16, two in a word, for tensor cores.
#}
fn halves(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(
    pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw)
  );
}

// The upper 11 bits of each number, which float16 can hold. (Converting there and back is undone by a compiler.)
fn upper(x: vec4<f32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xffffe000u));
}

// What float16 can hold: larger numbers become the largest. NaN and infinity stay, and give NaN.
fn bounded(x: vec4<f32>) -> vec4<f32> {
  let special = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
  return select(clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0)), x, special);
}

fn are_finite(x: vec4<f32>) -> vec4<bool> {
  return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
}

// What `upper` leaves of each number; nothing of NaN and infinity.
fn rest(x: vec4<f32>) -> vec4<f32> {
  return select(vec4<f32>(), x - upper(x), are_finite(x));
}
