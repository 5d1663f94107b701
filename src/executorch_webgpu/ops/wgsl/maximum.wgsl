{#
Where a running maximum begins, and the largest magnitude of four numbers.
#}
const LOWEST = -3.4028234e38;

fn largest_of(x: vec4<f32>) -> f32 {
  let a = abs(x);
  return max(max(a.x, a.y), max(a.z, a.w));
}
