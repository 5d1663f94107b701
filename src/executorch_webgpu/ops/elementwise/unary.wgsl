{#
out = an expression of every element of x, four elements per invocation.

Inputs:
  expression = "x * p" | "keep_nan(x, max(x, V(0)))": WGSL in V, the vec4 type, and the vec4s x, and p, q and r, which are scalars
  compute = "f32" | "i32": the scalar type to compute in
  x = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "bool" | "uint8" | "int8": dtype
  out = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "bool" | "uint8" | "int8": dtype
#}
@group(0) @binding(0) var<storage, read> input: array<{{ x }}_quad>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ out }}_quad>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  quads: u32,
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
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.quads) {
    return;
  }
  let x = V(unpack_{{ x }}(input[i]));
  let p = V(params.p);
  let q = V(params.q);
  let r = V(params.r);
  out[i] = packed(V({{ expression }}));
}
