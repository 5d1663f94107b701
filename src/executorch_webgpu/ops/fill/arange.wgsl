{#
out[i] = start + i * step.

Inputs:
  element = "f32" | "i32": the WGSL type of out
#}
@group(0) @binding(0) var<storage, read_write> out: array<{{ element }}>;
@group(0) @binding(1) var<uniform> params: Params;

struct Params {
  n: u32,
  start: {{ element }},
  step: {{ element }},
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i < params.n) {
    out[i] = params.start + {{ element }}(i) * params.step;
  }
}
