{#
RMSNorm or LayerNorm of the rows of x: one workgroup a row.

Inputs:
  center = False | True: LayerNorm: the mean is subtracted first, and it and 1/std are results, too
  weight = True | False: whether the result is multiplied by it
  bias = False | True: whether it is added
#}
@group(0) @binding(0) var<storage, read> x: array<f32>;  // [rows, width]
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
{% if weight %}
@group(0) @binding(2) var<storage, read> weight: array<f32>;  // [width]
{% endif %}
{% if bias %}
@group(0) @binding(3) var<storage, read> bias: array<f32>;  // [width]
{% endif %}
{% if center %}
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;  // [rows]
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;  // [rows]
{% endif %}

struct Params {
  rows: u32,
  width: u32,
  eps: f32,
}
@group(0) @binding(6) var<uniform> params: Params;

{% include "wgsl/workgroup_reduce.wgsl" %}

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
  let width = f32(params.width);

  {% if center %}
  var sum = 0.0;
  for (var i = lane; i < params.width; i += wg_size) {
    sum += x[start + i];
  }
  let center = workgroup_sum(sum, lane) / width;
  {% else %}
  let center = 0.0;
  {% endif %}
  // A second pass over the centered values: the difference of two large sums would lose the variance.
  var squares = 0.0;
  for (var i = lane; i < params.width; i += wg_size) {
    let value = x[start + i] - center;
    squares += value * value;
  }
  let total = workgroup_sum(squares, lane);
  {% if center %}
  // Squares that float32 cannot hold would make everything 0 without a word: NaN, as in torch.
  let overflow = bitcast<u32>(total) == 0x7f800000u;
  let factor = select(1.0 / sqrt(total / width + params.eps), bitcast<f32>(bitcast<u32>(total) | 0x7fc00000u), overflow);
  {% else %}
  let factor = 1.0 / sqrt(total / width + params.eps);
  {% endif %}

  for (var i = lane; i < params.width; i += wg_size) {
    var value = (x[start + i] - center) * factor;
    {% if weight %}
    value *= weight[i];
    {% endif %}
    {% if bias %}
    value += bias[i];
    {% endif %}
    out[start + i] = value;
  }
  {% if center %}
  if (lane == 0u) {
    mean[row] = center;
    rstd[row] = factor;
  }
  {% endif %}
}
