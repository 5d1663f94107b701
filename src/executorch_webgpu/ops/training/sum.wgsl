{#
The sum of a few numbers, by one workgroup.
#}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;  // one element

struct Params {
  n: u32,
}
@group(0) @binding(2) var<uniform> params: Params;

{% include "wgsl/workgroup_reduce.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < params.n; i += wg_size) {
    sum += x[i];
  }
  sum = workgroup_sum(sum, lane);
  if (lane == 0u) {
    out[0] = sum;
  }
}
