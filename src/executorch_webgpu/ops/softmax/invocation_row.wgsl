{#
Softmax along a dimension that is not the last: one invocation a row. Neighbouring invocations read neighbouring elements.

Inputs:
  log = False | True: whether the logarithm of the result is wanted
#}
@group(0) @binding(0) var<storage, read> x: array<f32>;  // [outer, length, inner]
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

struct Params {
  rows: u32,  // outer * inner
  length: u32,
  inner: u32,
}
@group(0) @binding(2) var<uniform> params: Params;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/maximum.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = linear_index(gid, groups, wg_size);
  if (row >= params.rows) {
    return;
  }
  let start = row / params.inner * params.length * params.inner + row % params.inner;
  let end = start + params.length * params.inner;

  var largest = LOWEST;
  for (var i = start; i < end; i += params.inner) {
    largest = max(largest, x[i]);
  }
  var sum = 0.0;
  for (var i = start; i < end; i += params.inner) {
    sum += exp(x[i] - largest);
  }
  for (var i = start; i < end; i += params.inner) {
    {% if log %}
    out[i] = x[i] - largest - log(sum);
    {% else %}
    out[i] = exp(x[i] - largest) / sum;
    {% endif %}
  }
}
