{#
Sums of several workgroups that share a tile of gemm_matrix added up, with bias and residual. N is whole fours.

An invocation takes four neighbouring elements.

Inputs:
  bias = False | True: whether it is added
  residual = False | True: whether it is added
#}
@group(0) @binding(0) var<storage, read> sums: array<vec4<f32>>;  // [splits, m, n / 4]
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;  // [m, n / 4]
{% if bias %}
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;  // [n / 4]
{% endif %}
{% if residual %}
@group(0) @binding(3) var<storage, read> residual: array<vec4<f32>>;  // like out
{% endif %}

struct Params {
  quads: u32,  // of out
  width: u32,  // fours of a row
  splits: u32,
}
@group(0) @binding(4) var<uniform> params: Params;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad >= params.quads) {
    return;
  }
  var value = sums[quad];
  for (var split = 1u; split < params.splits; split++) {
    value += sums[split * params.quads + quad];
  }
  {% if bias %}
  value += bias[quad % params.width];
  {% endif %}
  {% if residual %}
  value += residual[quad];
  {% endif %}
  out[quad] = value;
}
