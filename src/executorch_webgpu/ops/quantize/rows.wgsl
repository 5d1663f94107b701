{#
Rows of x as what their int8 codes stand for, with a scale and a zero point for every row; one workgroup takes a row.
#}
{% set mapping = "asymmetric" %}
{% set zero = "int8" %}
@group(0) @binding(0) var<storage, read> x: array<f32>;  // [rows, width]
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

struct Params {
  rows: u32,
  width: u32,
  range: vec4<f32>,  // see mapping.wgsl
}
@group(0) @binding(2) var<uniform> params: Params;

{% include "wgsl/workgroup_reduce.wgsl" %}
{% include "quantize/mapping.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.width;
  var least = 0.0;
  var largest = 0.0;
  var nan = 0.0;
  for (var i = lane; i < params.width; i += wg_size) {
    let value = x[start + i];
    if ((bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u) {
      nan = 1.0;
    } else {
      least = min(least, value);
      largest = max(largest, value);
    }
  }
  least = -workgroup_max(-least, lane);
  largest = workgroup_max(largest, lane);
  nan = workgroup_max(nan, lane);
  let found = parameters_of(vec3<f32>(least, largest, nan), params.range);
  let zero = vec4<f32>(stored_zeros(vec4<f32>(found.y), vec4<f32>(nan), params.range));
  let scale = with_nan(vec4<f32>(found.x), vec4<f32>(nan));
  let factor = exact_quotient(1.0, scale.x);
  for (var i = lane; i < params.width; i += wg_size) {
    let whole = codes(round(vec4<f32>(x[start + i]) * factor) + zero, params.range.x, params.range.y);
    out[start + i] = ((vec4<f32>(whole) - zero) * scale).x;
  }
}
