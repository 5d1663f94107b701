{#
Softmax of contiguous rows: one workgroup a row.

Inputs:
  log = False | True: whether the logarithm of the result is wanted
#}
@group(0) @binding(0) var<storage, read> x: array<f32>;  // [rows, length]
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

struct Params {
  rows: u32,
  length: u32,
}
@group(0) @binding(2) var<uniform> params: Params;

{% include "wgsl/workgroup_reduce.wgsl" %}
{% include "wgsl/maximum.wgsl" %}

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
  let start = row * params.length;
  var largest = LOWEST;
  for (var i = lane; i < params.length; i += wg_size) {
    largest = max(largest, x[start + i]);
  }
  largest = workgroup_max(largest, lane);

  var sum = 0.0;
  for (var i = lane; i < params.length; i += wg_size) {
    sum += exp(x[start + i] - largest);
  }
  sum = workgroup_sum(sum, lane);

  for (var i = lane; i < params.length; i += wg_size) {
    {% if log %}
    out[start + i] = x[start + i] - largest - log(sum);
    {% else %}
    out[start + i] = exp(x[start + i] - largest) / sum;
    {% endif %}
  }
}
