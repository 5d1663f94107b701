{#
Cross-entropy of rows of logits and its gradient; a workgroup takes a row. A negative label leaves its row out.
#}
@group(0) @binding(0) var<storage, read> logits: array<f32>;  // [rows, width]
@group(0) @binding(1) var<storage, read> labels: array<i32>;  // [rows]
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;  // [rows]
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;  // [rows, width]

struct Params {
  rows: u32,
  width: u32,
  count: f32,  // what the sum over all rows is divided by
}
@group(0) @binding(4) var<uniform> params: Params;

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
  let start = row * params.width;
  let label = labels[row];
  let target_column = u32(clamp(label, 0, i32(params.width) - 1));
  var largest = LOWEST;
  for (var i = lane; i < params.width; i += wg_size) {
    largest = max(largest, logits[start + i]);
  }
  largest = workgroup_max(largest, lane);
  var sum = 0.0;
  for (var i = lane; i < params.width; i += wg_size) {
    sum += exp(logits[start + i] - largest);
  }
  sum = workgroup_sum(sum, lane);
  for (var i = lane; i < params.width; i += wg_size) {
    let probability = exp(logits[start + i] - largest) / sum;
    let error = (probability - select(0.0, 1.0, i == target_column)) / params.count;
    gradient[start + i] = select(error, 0.0, label < 0);
  }
  if (lane == 0u) {
    let loss = (log(sum) + (largest - logits[start + target_column])) / params.count;
    losses[row] = select(loss, 0.0, label < 0);
  }
}
