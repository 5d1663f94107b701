{#
Sums of several workgroups that share a tile of gemm_matrix or gemm_few added up, with all that becomes of a finished sum.

An invocation takes four neighbouring elements of an output.

Inputs:
  outputs = 1 | 2 | 3: matrices, each with an output of its own
  gated = False | True: quads take turns between two matrices, and silu(first) * second is the one output
  bias = False | True: whether it is added
  residual = False | True: whether it is added to the one output
  fours = True | False: every width is a multiple of 4
#}
@group(0) @binding(0) var<storage, read> sums: array<vec4<f32>>;  // [splits, m, quads]
// Bindings 3 to 5, 7 and 8: outputs, bias and residual.
{% include "matmul/output.wgsl" %}

struct Params {
  m: u32,
  quads: u32,  // fours of columns, of all matrices
  splits: u32,
  ends: vec4<u32>,    // of each output, the quad after its last one
  widths: vec4<u32>,  // of each output, columns
}
@group(0) @binding(9) var<uniform> params: Params;

override wg_size: u32 = 64;

const MATRICES = {{ 2 if gated else 1 }}u;  // whose quads take turns

{% include "wgsl/linear_index.wgsl" %}

fn total(at: u32) -> vec4<f32> {
  var value = sums[at];
  for (var split = 1u; split < params.splits; split++) {
    value += sums[split * params.m * params.quads + at];
  }
  return value;
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let width = params.quads / MATRICES;
  let item = linear_index(gid, groups, wg_size);
  if (item >= params.m * width) {
    return;
  }
  let row = item / width;
  let quad = item % width;
  let value = total(item * MATRICES);
  {% if gated %}
  let other = total(item * MATRICES + 1u);
  {% endif %}
  {% if gated %}
  let result = silu_four(with_bias_four(value, quad * 2u)) * with_bias_four(other, quad * 2u + 1u);
  {% else %}
  let result = with_bias_four(value, quad);
  {% endif %}
  store_four(row, quad, result, params.ends, params.widths);
}
