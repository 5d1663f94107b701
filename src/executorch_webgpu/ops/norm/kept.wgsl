{#
RMSNorm or LayerNorm of rows that a workgroup keeps: memory is read once. `lanes` invocations share a row, and keep units
of it, one or four elements; a workgroup has several rows.

Inputs:
  center = False | True: LayerNorm: the mean is subtracted first, and it and 1/std are results, too
  weight = True | False: whether the result is multiplied by it
  bias = False | True: whether it is added
  kept = 4 | 16: units that an invocation keeps, at most
  unit = 4 | 1: elements of a unit
#}
{% set type = "vec4<f32>" if unit == 4 else "f32" %}
alias Unit = {{ type }};
@group(0) @binding(0) var<storage, read> x: array<{{ type }}>;  // [rows, length]
@group(0) @binding(1) var<storage, read_write> out: array<{{ type }}>;
{% if weight %}
@group(0) @binding(2) var<storage, read> weight: array<{{ type }}>;  // [length]
{% endif %}
{% if bias %}
@group(0) @binding(3) var<storage, read> bias: array<{{ type }}>;  // [length]
{% endif %}
{% if center %}
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;  // [rows]
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;  // [rows]
{% endif %}

struct Params {
  rows: u32,
  length: u32,  // in units
  lanes: u32,  // a power of two that divides wg_size
  eps: f32,
}
@group(0) @binding(6) var<uniform> params: Params;

override wg_size: u32 = 256;

{% if center %}
var<workgroup> sums: array<f32, wg_size>;
{% endif %}
var<workgroup> squares: array<f32, wg_size>;

fn total_of(v: Unit) -> f32 {
  return {{ "(v.x + v.y) + (v.z + v.w)" if unit == 4 else "v" }};
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let lane = local % params.lanes;
  let first = local - lane;  // the first invocation of the row
  let row = (group.x + group.y * groups.x) * (wg_size / params.lanes) + local / params.lanes;
  let start = min(row, params.rows - 1u) * params.length;
  let width = f32(params.length) * {{ unit }}.0;
  {% for k in range(kept) %}
  let i{{ k }} = lane + {{ k }}u * params.lanes;
  let v{{ k }} = x[start + min(i{{ k }}, params.length - 1u)];
  {% endfor %}

  {% if center %}
  var sum = Unit();
  {% for k in range(kept) %}
  sum += select(Unit(), v{{ k }}, i{{ k }} < params.length);
  {% endfor %}
  sums[local] = total_of(sum);
  workgroupBarrier();
  for (var half = params.lanes / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      sums[local] += sums[local + half];
    }
    workgroupBarrier();
  }
  let center = sums[first] / width;
  {% else %}
  let center = 0.0;
  {% endif %}
  // Of the centered values: the difference of two large sums would lose the variance.
  var square = Unit();
  {% for k in range(kept) %}
  {
    let value = select(Unit(), v{{ k }} - center, i{{ k }} < params.length);
    square += value * value;
  }
  {% endfor %}
  squares[local] = total_of(square);
  workgroupBarrier();
  for (var half = params.lanes / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      squares[local] += squares[local + half];
    }
    workgroupBarrier();
  }
  if (row >= params.rows) {
    return;
  }
  let total = squares[first];
  {% if center %}
  // Squares that float32 cannot hold would make everything 0 without a word: NaN, as in torch.
  let overflow = bitcast<u32>(total) == 0x7f800000u;
  let factor = select(1.0 / sqrt(total / width + params.eps), bitcast<f32>(bitcast<u32>(total) | 0x7fc00000u), overflow);
  {% else %}
  let factor = 1.0 / sqrt(total / width + params.eps);
  {% endif %}
  {% for k in range(kept) %}
  if (i{{ k }} < params.length) {
    out[start + i{{ k }}] = (v{{ k }} - center) * factor{{ " * weight[i%d]" % k if weight }}{{ " + bias[i%d]" % k if bias }};
  }
  {% endfor %}
  {% if center %}
  if (lane == 0u) {
    mean[row] = center;
    rstd[row] = factor;
  }
  {% endif %}
}
