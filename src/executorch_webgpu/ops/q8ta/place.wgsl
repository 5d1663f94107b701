{#
Which place of the input a kernel's tap reads for a place of the output, four of them at a time.

Inputs:
  transposed = False | True: the input's places are `stride` apart on the output
#}
struct Places {
  at: vec4<u32>,  // in a channel of the input; 0 where there is none
  there: vec4<bool>,
}

{% if transposed %}
fn along(place: vec4<u32>, tap: u32, stride: u32, padding: u32, dilation: u32) -> vec4<i32> {
  let from_first = vec4<i32>(place) + i32(padding) - i32(tap * dilation);
  let index = vec4<u32>(max(from_first, vec4<i32>(0))) / stride;
  return select(vec4<i32>(-1), vec4<i32>(index), vec4<i32>(index * stride) == from_first);
}
{% else %}
fn along(place: vec4<u32>, tap: u32, stride: u32, padding: u32, dilation: u32) -> vec4<i32> {
  return vec4<i32>(place * stride + tap * dilation) - i32(padding);
}
{% endif %}

fn places_of(
  row: vec4<u32>, column: vec4<u32>, tap: vec2<u32>, size: vec2<u32>, stride: vec2<u32>, padding: vec2<u32>,
  dilation: vec2<u32>,
) -> Places {
  let y = along(row, tap.x, stride.x, padding.x, dilation.x);
  let x = along(column, tap.y, stride.y, padding.y, dilation.y);
  let zero = vec4<i32>(0);
  let there = (y >= zero) & (y < vec4<i32>(i32(size.x))) & (x >= zero) & (x < vec4<i32>(i32(size.y)));
  return Places(select(vec4<u32>(0u), vec4<u32>(y) * size.y + vec4<u32>(x), there), there);
}
