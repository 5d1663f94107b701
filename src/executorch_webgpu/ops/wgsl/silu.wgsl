{#
SiLU: x times the logistic function of x.
#}
fn silu(x: f32) -> f32 {
  let e = exp(-abs(x));  // never of a positive number, so that nothing overflows
  return x * select(1.0, e, x < 0.0) / (1.0 + e);
}

fn silu_four(x: vec4<f32>) -> vec4<f32> {
  let e = exp(-abs(x));
  return x * select(vec4<f32>(1.0), e, x < vec4<f32>()) / (1.0 + e);
}
