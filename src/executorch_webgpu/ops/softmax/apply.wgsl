{#
Softmax of x [outer, length, inner] along its middle dimension, four elements per invocation, of partials of its rows.

Inputs:
  result = "softmax" | "log" | "safe": see result.wgsl
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
{% include "softmax/result.wgsl" %}

fn row_of(i: u32) -> vec2<f32> {
  let above = min(i, params.n - 1u) / params.inner;
  return partials[above / params.length * params.inner + (min(i, params.n - 1u) - above * params.inner)];
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  let i = quad * 4u;
  if (i >= params.n) {
    return;
  }
  let v = vec4<f32>(unpack_{{ x }}(x[quad]));
  out[quad] = pack_{{ out }}(vec4<f32>(
    softmax_of(v.x, row_of(i)),
    softmax_of(v.y, row_of(i + 1u)),
    softmax_of(v.z, row_of(i + 2u)),
    softmax_of(v.w, row_of(i + 3u))
  ));
}
