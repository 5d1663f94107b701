{#
Mean and 1/deviation of rows, from means and sums of squared deviations of their parts. A workgroup takes a row.
#}
@group(0) @binding(0) var<storage, read> parts: array<vec2<f32>>;  // [rows, splits]
@group(0) @binding(1) var<storage, read_write> stats: array<vec2<f32>>;  // [rows]
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  rows: u32,
  splits: u32,
  length: f32,  // elements of a row, of each part but the last one, and of that
  part: f32,
  last: f32,
  eps: f32,
}

{% include "wgsl/workgroup_reduce.wgsl" %}

fn count_of(split: u32) -> f32 {
  return select(params.part, params.last, split == params.splits - 1u);
}

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
  let start = row * params.splits;
  var sum = 0.0;
  for (var i = lane; i < params.splits; i += wg_size) {
    sum += parts[start + i].x * (count_of(i) / params.length);
  }
  let mean = workgroup_sum(sum, lane);
  var squares = 0.0;
  for (var i = lane; i < params.splits; i += wg_size) {
    let part = parts[start + i];
    let shift = part.x - mean;
    squares += part.y + count_of(i) * shift * shift;
  }
  let total = workgroup_sum(squares, lane);
  if (lane == 0u) {
    stats[row] = vec2<f32>(mean, 1.0 / sqrt(total / params.length + params.eps));
  }
}
