{#
Mean and sum of squared deviations of parts of rows. A workgroup takes a part of a row.

Elements of a row are `length` in segments that are equally far from each other.

Inputs:
  wide = False | True: rows, segments and parts consist of quads of elements
  segments = False | True: there may be several in a row
  dtype = "float32" | "float16" | "bfloat16": of x
#}
{% set unit = 4 if wide else 1 %}
@group(0) @binding(0) var<storage, read> x: array<{{ dtype }}_{{ "quad" if wide else "word" }}>;
@group(0) @binding(1) var<storage, read_write> parts: array<vec2<f32>>;  // [rows, splits]
@group(0) @binding(2) var<uniform> params: Params;

// Numbers of elements are in units: quads if wide.
struct Params {
  rows: u32,
  splits: u32,  // parts of a row
  length: u32,
  part: u32,  // of every part but the last one
  row_stride: u32,
  segment: u32,
  segment_stride: u32,
  eps: f32,
}

{% include "wgsl/workgroup_reduce.wgsl" %}
{% include "wgsl/elements.wgsl" %}

const UNIT = {{ unit }}.0;

fn units_at(start: u32, i: u32) -> {{ "vec4<f32>" if wide else "f32" }} {
  {% if segments %}
  let segment = i / params.segment;
  let at = start + segment * params.segment_stride + (i - segment * params.segment);
  {% else %}
  let at = start + i;
  {% endif %}
  {% if wide %}
  return unpack_{{ dtype }}(x[at]);
  {% else %}
  return element_{{ dtype }}(x[at / {{ dtype }}_per_word], at);
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = group.x + group.y * groups.x;
  if (index >= params.rows * params.splits) {
    return;
  }
  let row = index / params.splits;
  let start = row * params.row_stride;
  let first = (index - row * params.splits) * params.part;
  let end = min(first + params.part, params.length);
  let count = f32(end - first) * UNIT;

  var sum = {{ "vec4<f32>()" if wide else "0.0" }};
  for (var i = first + lane; i < end; i += wg_size) {
    sum += units_at(start, i);
  }
  let mean = workgroup_sum({{ "dot(sum, vec4<f32>(1.0))" if wide else "sum" }}, lane) / count;
  // A second pass over the centered values: the difference of two large sums would lose the variance.
  var squares = {{ "vec4<f32>()" if wide else "0.0" }};
  for (var i = first + lane; i < end; i += wg_size) {
    let value = units_at(start, i) - mean;
    squares += value * value;
  }
  let total = workgroup_sum({{ "dot(squares, vec4<f32>(1.0))" if wide else "squares" }}, lane);
  if (lane == 0u) {
    // The only part of a row is all of it: its mean and 1/deviation.
    let rstd = 1.0 / sqrt(total / count + params.eps);
    parts[index] = vec2<f32>(mean, select(total, rstd, params.splits == 1u));
  }
}
