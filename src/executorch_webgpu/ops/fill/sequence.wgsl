{#
out[i] = an expression of i, four elements per invocation.

Inputs:
  expression = "p + V(i) * q" | "V(i == vec4<u32>(params.count))": WGSL in V, the vec4 type, the places i and the numbers p, q, r
  compute = "f32" | "i32": the scalar type to compute in
  out = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "bool" | "uint8" | "int8": dtype
#}
@group(0) @binding(0) var<storage, read_write> out: array<{{ out }}_quad>;
@group(0) @binding(1) var<uniform> params: Params;

struct Params {
  n: u32,
  count: u32,
  p: {{ compute }},
  q: {{ compute }},
  r: {{ compute }},
}

override wg_size: u32 = 64;
alias V = vec4<{{ compute }}>;
{% include "wgsl/linear_index.wgsl" %}
{% include "elementwise/result.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  let i = quad * 4u + vec4<u32>(0u, 1u, 2u, 3u);
  let p = V(params.p);
  let q = V(params.q);
  let r = V(params.r);
  out[quad] = packed(V({{ expression }}));
}
