{#
Softmax of x [outer, length, inner] along its middle dimension, four elements per invocation, of partials of its rows.

Inputs:
  result = "softmax" | "log" | "safe": its logarithm, or 0 in rows of nothing but -inf; else these are NaN, as in torch
  x = "float32" | "float16" | "int32": dtype
  out = "float32" | "float16": dtype
#}
@group(0) @binding(0) var<storage, read> x: array<{{ x }}_quad>;
@group(0) @binding(1) var<storage, read> partials: array<vec2<f32>>;  // [outer, inner], of kind "lse"
@group(0) @binding(2) var<storage, read_write> out: array<{{ out }}_quad>;

struct Params {
  n: u32,
  length: u32,
  inner: u32,
}
@group(0) @binding(3) var<uniform> params: Params;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
// The softmax of an element, of what is known of its row: a partial of kind "lse" (reduce/partial.wgsl).
fn softmax_of(x: f32, row: vec2<f32>) -> f32 {
  // The sum is infinite where an element is: all of the row is NaN then.
  let infinite = bitcast<u32>(row.y) == 0x7f800000u;
  let sum = bitcast<f32>(select(bitcast<u32>(row.y), 0x7fc00000u, infinite));
  {% if result == "log" %}
  return x - row.x - log(sum);
  {% elif result == "safe" %}
  return select(exp(x - row.x) / sum, 0.0, sum == 0.0);
  {% else %}
  return exp(x - row.x) / sum;
  {% endif %}
}

fn row_of(i: u32) -> vec2<f32> {
  let above = min(i, params.n - 1u) / params.inner;
  return partials[above / params.length * params.inner + (min(i, params.n - 1u) - above * params.inner)];
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let order = linear_index(gid, groups, wg_size);
  let quads = (params.n + 3u) / 4u;
  if (order >= quads) {
    return;
  }
  let quad = quads - 1u - order;  // what was reduced last may still be in a cache
  let i = quad * 4u;
  let v = vec4<f32>(unpack_{{ x }}(x[quad]));
  let row0 = row_of(i);
  var row1 = row0;
  var row2 = row0;
  var row3 = row0;
  if (params.inner > 1u || params.length % 4u != 0u) {  // else a quad lies in one row
    row1 = row_of(i + 1u);
    row2 = row_of(i + 2u);
    row3 = row_of(i + 3u);
  }
  out[quad] = pack_{{ out }}(vec4<f32>(
    softmax_of(v.x, row0), softmax_of(v.y, row1), softmax_of(v.z, row2), softmax_of(v.w, row3)
  ));
}
