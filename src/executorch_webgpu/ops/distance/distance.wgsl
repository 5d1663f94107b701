{#
Distances between rows: the p-norm of their differences. An invocation computes one.

Inputs:
  norm = "2" | "0" | "1" | "inf" | "p": which one; "p" is a parameter
  pairs = "all" | "upper": of rows of a and rows of b, in batches; or of each row of a and those that follow it
#}
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
{% if pairs == "all" %}
@group(0) @binding(2) var<storage, read> b: array<f32>;
{% endif %}
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  n: u32,  // distances
  width: u32,  // elements of a row
  p: f32,
  a_rows: u32,
{% if pairs == "all" %}
  b_rows: u32,
  rank: u32,  // of the batches, whose dims and strides follow, innermost first
  dims: array<vec4<u32>, 2>,
  a_strides: array<vec4<u32>, 2>,  // in matrices; 0 where one is repeated
  b_strides: array<vec4<u32>, 2>,
{% endif %}
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

{% if norm in ("0", "p") %}
// Drivers drop NaN in pow, and may take comparisons as if there were none.
fn is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

{% endif %}
// Where the two rows begin.
{% if pairs == "all" %}
fn rows_of(i: u32) -> vec2<u32> {
  let left = i / params.b_rows;
  var rest = left / params.a_rows;
  var at = vec2<u32>(left - rest * params.a_rows, i - left * params.b_rows);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let strides = vec2<u32>(params.a_strides[d / 4u][d % 4u], params.b_strides[d / 4u][d % 4u]);
    at += (rest - outer * size) * strides * vec2<u32>(params.a_rows, params.b_rows);
    rest = outer;
  }
  return at * params.width;
}
{% else %}
// Distances before those of row r and the rows that follow it.
fn before(r: u32) -> u32 {
  return r * (2u * params.a_rows - r - 1u) / 2u;
}

fn rows_of(i: u32) -> vec2<u32> {
  let wide = f32(2u * params.a_rows - 1u);
  var r = u32(clamp((wide - sqrt(max(wide * wide - 8.0 * f32(i), 0.0))) / 2.0, 0.0, f32(params.a_rows - 2u)));
  while (before(r) > i) {  // floats are off by a few
    r -= 1u;
  }
  while (before(r + 1u) <= i) {
    r += 1u;
  }
  return vec2<u32>(r, r + 1u + i - before(r)) * params.width;
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let at = rows_of(i);
  {% if norm == "inf" %}
  var largest = 0u;  // bits of floats that are not negative are in their order, with NaN above all
  {% else %}
  var sum = 0.0;
  {% endif %}
  for (var k = 0u; k < params.width; k++) {
    let difference = abs(a[at.x + k] - {{ "b" if pairs == "all" else "a" }}[at.y + k]);
    {% if norm == "inf" %}
    let bits = bitcast<u32>(difference) & 0x7fffffffu;
    {% if pairs == "all" %}
    largest = max(largest, select(bits, 0u, bits > 0x7f800000u));  // torch passes over NaN here, and there it does not
    {% else %}
    largest = max(largest, bits);
    {% endif %}
    {% elif norm == "0" %}
    sum += select(select(1.0, 0.0, difference == 0.0), difference, is_nan(difference));
    {% elif norm == "1" %}
    sum += difference;
    {% elif norm == "2" %}
    sum += difference * difference;
    {% else %}
    sum += select(pow(difference, params.p), difference, is_nan(difference));
    {% endif %}
  }
  {% if norm == "inf" %}
  out[i] = bitcast<f32>(largest);
  {% elif norm == "2" %}
  out[i] = sqrt(sum);
  {% elif norm == "p" %}
  out[i] = select(pow(sum, 1.0 / params.p), sum, is_nan(sum));
  {% else %}
  out[i] = sum;
  {% endif %}
}
