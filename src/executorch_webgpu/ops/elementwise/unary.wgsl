{% from "elementwise/packing.wgsl" import pack, quad_type, unpack %}
// out = {{ expression }}, four elements per invocation.
@group(0) @binding(0) var<storage, read> input: array<{{ quad_type(x) }}>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ quad_type(out) }}>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  quads: u32,
  p: {{ compute }},
  q: {{ compute }},
}

override wg_size: u32 = 64;
alias V = vec4<{{ compute }}>;
{% include "wgsl/linear_index.wgsl" %}
{% include "elementwise/functions.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.quads) {
    return;
  }
  let packed = input[i];
  let x = V({{ unpack(x, "packed") }});
  let p = V(params.p);
  let q = V(params.q);
  let result = {{ expression }};
  out[i] = {{ pack(out, "result") }};
}
