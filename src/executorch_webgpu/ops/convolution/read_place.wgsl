{#
Where an output place reads x under an element of the kernel.

Inputs:
  transposed = False | True: strides are those of the output
#}
// No place of x where there is none.
fn read_place(at: vec3<i32>, tap: vec3<i32>, stride: vec3<i32>, padding: vec3<i32>, dilation: vec3<i32>) -> vec3<i32> {
  {% if transposed %}
  let spread = at + padding - tap * dilation;
  let missing = any(spread < vec3<i32>()) || any(spread % stride != vec3<i32>());
  return select(spread / stride, vec3<i32>(-1), missing);
  {% else %}
  return at * stride - padding + tap * dilation;
  {% endif %}
}
