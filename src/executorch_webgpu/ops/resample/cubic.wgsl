{#
Weights of four neighbours by the cubic convolution of Keys, with a = -0.75.
#}
// `t`: how far the place lies behind the second of them, from 0 to 1.
fn cubic_weights(t: f32) -> vec4<f32> {
  let near = vec2<f32>(t, 1.0 - t);
  let inner = (1.25 * near - 2.25) * near * near + 1.0;
  let far = near + 1.0;
  let outer = ((-0.75 * far + 3.75) * far - 6.0) * far + 3.0;
  return vec4<f32>(outer.x, inner.x, inner.y, outer.y);
}
