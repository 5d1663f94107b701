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

override wg_size: u32 = 256;

var<workgroup> partials: array<vec4<f32>, wg_size>;

{% include "wgsl/elements.wgsl" %}

const UNIT = {{ unit }}.0;
const BLOCK = 4u;  // units that an invocation takes at once
alias Unit = {{ "vec4<f32>" if wide else "f32" }};

fn units_at(start: u32, i: u32) -> Unit {
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

fn total_of(v: Unit) -> f32 {
  return {{ "(v.x + v.y) + (v.z + v.w)" if wide else "v" }};
}

// Of two sets, each with how many there are, their mean, and the sum of squared deviations: those of both, by Chan's rule.
fn both(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  let count = a.x + b.x;
  let share = b.x / max(count, 1.0);
  let shift = b.y - a.y;
  let merged = vec4<f32>(count, a.y + shift * share, a.z + b.z + shift * shift * a.x * share, 0.0);
  return select(select(merged, a, b.x == 0.0), b, a.x == 0.0);
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

  // Blocks are centered by themselves: the difference of two large sums would lose the variance.
  var found = vec4<f32>();
  for (var i = first + lane; i < end; i += BLOCK * wg_size) {
    let i0 = i;
    let i1 = i + wg_size;
    let i2 = i + 2u * wg_size;
    let i3 = i + 3u * wg_size;
    let v0 = units_at(start, i0);
    let v1 = units_at(start, min(i1, end - 1u));
    let v2 = units_at(start, min(i2, end - 1u));
    let v3 = units_at(start, min(i3, end - 1u));
    let counts = vec4<f32>(1.0, select(vec3<f32>(), vec3<f32>(1.0), vec3<u32>(i1, i2, i3) < vec3<u32>(end)));
    let count = dot(counts, vec4<f32>(1.0)) * UNIT;
    let none = Unit();
    let sum = (v0 + select(none, v1, i1 < end)) + (select(none, v2, i2 < end) + select(none, v3, i3 < end));
    let mean = total_of(sum) / count;
    let d0 = v0 - mean;
    let d1 = select(none, v1 - mean, i1 < end);
    let d2 = select(none, v2 - mean, i2 < end);
    let d3 = select(none, v3 - mean, i3 < end);
    found = both(found, vec4<f32>(count, mean, total_of((d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)), 0.0));
  }
  partials[lane] = found;
  workgroupBarrier();
  for (var half = wg_size / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partials[lane] = both(partials[lane], partials[lane + half]);
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    // The only part of a row is all of it: its mean and 1/deviation.
    let whole = partials[0];
    let rstd = 1.0 / sqrt(whole.z / whole.x + params.eps);
    parts[index] = vec2<f32>(whole.y, select(whole.z, rstd, params.splits == 1u));
  }
}
