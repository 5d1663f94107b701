{#
What becomes of a finished sum: bias, SiLU, residual, and the place in an output. Bindings 3 to 5, 7 and 8.

Columns are in the order of the packed weights, fours of them are quads, and the quads of the outputs follow each other.

Inputs:
  outputs = 1 | 2 | 3: how many
  bias = True | False: whether it is added to the sums
  residual = True | False: whether it is added to the one output
  fours = True | False: every width is a multiple of 4, and whole quads are stored
#}
{% set element = "vec4<f32>" if fours else "f32" %}
{% for i in range(outputs) %}
@group(0) @binding({{ 3 + i }}) var<storage, read_write> out{{ i }}: array<{{ element }}>;  // [m, its width]
{% endfor %}
{% if bias %}
@group(0) @binding(7) var<storage, read> bias: array<{{ element }}>;  // [4 * quads]; of one matrix, [columns]
{% endif %}
{% if residual %}
@group(0) @binding(8) var<storage, read> residual: array<{{ element }}>;  // like out0
{% endif %}
{% include "wgsl/silu.wgsl" %}

{% if fours %}
// A quad of sums of all matrices.
fn with_bias_four(sums: vec4<f32>, quad: u32) -> vec4<f32> {
  {% if bias %}
  return sums + bias[quad];
  {% else %}
  return sums;
  {% endif %}
}

// A quad of the outputs: `ends` are the quads after the last one of each output, `widths` their columns.
fn store_four(row: u32, quad: u32, value: vec4<f32>, ends: vec4<u32>, widths: vec4<u32>) {
  {% if residual %}
  let at = row * (widths[0] / 4u) + quad;
  out0[at] = value + residual[at];
  {% else %}
  var first = 0u;
  {% for i in range(outputs - 1) %}
  if (quad < ends[{{ i }}]) {
    out{{ i }}[row * (widths[{{ i }}] / 4u) + quad - first] = value;
    return;
  }
  first = ends[{{ i }}];
  {% endfor %}
  out{{ outputs - 1 }}[row * (widths[{{ outputs - 1 }}] / 4u) + quad - first] = value;
  {% endif %}
}
{% else %}
fn with_bias(sum: f32, column: u32) -> f32 {
  {% if bias %}
  return sum + bias[column];
  {% else %}
  return sum;
  {% endif %}
}
{% if residual %}

// What is added to column 4 * quad + c; of columns that are not there, that of the last one.
fn residual_of(row: u32, quad: u32, c: u32, widths: vec4<u32>) -> f32 {
  return residual[row * widths[0] + min(quad * 4u + c, widths[0] - 1u)];
}
{% endif %}

{% for i in range(outputs) %}
fn write{{ i }}(row: u32, column: u32, value: f32, width: u32) {
  if (column < width) {
    out{{ i }}[row * width + column] = value;
  }
}

{% endfor %}
// Column 4 * quad + c of the outputs: `ends` are the quads after the last one of each output, `widths` their columns.
fn write(row: u32, quad: u32, c: u32, value: f32, ends: vec4<u32>, widths: vec4<u32>) {
  var first = 0u;
  {% for i in range(outputs - 1) %}
  if (quad < ends[{{ i }}]) {
    write{{ i }}(row, (quad - first) * 4u + c, value, widths[{{ i }}]);
    return;
  }
  first = ends[{{ i }}];
  {% endfor %}
  write{{ outputs - 1 }}(row, (quad - first) * 4u + c, value, widths[{{ outputs - 1 }}]);
}

fn store(row: u32, quad: u32, c: u32, value: f32, ends: vec4<u32>, widths: vec4<u32>) {
  {% if residual %}
  write(row, quad, c, value + residual_of(row, quad, c, widths), ends, widths);
  {% else %}
  write(row, quad, c, value, ends, widths);
  {% endif %}
}

// The same for a quad.
fn with_bias_four(sums: vec4<f32>, quad: u32) -> vec4<f32> {
  let column = quad * 4u;
  return vec4<f32>(
    with_bias(sums.x, column), with_bias(sums.y, column + 1u), with_bias(sums.z, column + 2u), with_bias(sums.w, column + 3u),
  );
}

fn store_four(row: u32, quad: u32, value: vec4<f32>, ends: vec4<u32>, widths: vec4<u32>) {
  for (var c = 0u; c < 4u; c++) {
    store(row, quad, c, value[c], ends, widths);
  }
}
{% endif %}
