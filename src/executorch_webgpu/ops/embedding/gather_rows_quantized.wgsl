{#
out[r] = the dequantized row indices[r] of a table, four neighbouring elements per invocation.

Table and scales lie as a linear layer has them: the scales in fours, one for each of four neighbouring rows.

Inputs:
  bits = 4 | 8: of a code
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min": see matmul/scales.wgsl
  vec4_out = True | False: rows of out are multiples of 4 elements
#}
{% include "matmul/codes.wgsl" %}
{% include "matmul/scales.wgsl" %}
{% include "wgsl/linear_index.wgsl" %}
@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> indices: array<i32>;
@group(0) @binding(2) var<storage, read> scales: array<FourScales>;
@group(0) @binding(3) var<storage, read_write> out: array<{{ "vec4<f32>" if vec4_out else "f32" }}>;
@group(0) @binding(4) var<uniform> params: Params;

struct Params {
  n: u32,  // quads of elements of out
  row_quads: u32,  // those of a row, the last of which may be less
  width: u32,  // elements of a row
  group_size: u32,
  quad_step: u32,  // in words of the table: from four rows to the next four,
  row_step: u32,  // from one of them to the next,
  word_step: u32,  // and along a row
  scale_quad_step: u32,  // in elements of scales: from four rows to the next four
  scale_group_step: u32,  // and from a group to the next
  last: i32,  // the last row of the table
}

override wg_size: u32 = 64;

const BITS = {{ bits }}u;
const PER_WORD = 32u / BITS;

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let r = i / params.row_quads;
  let k = (i - r * params.row_quads) * 4u;
  let token = u32(clamp(indices[r], 0, params.last));
  let at = token / 4u * params.quad_step + token % 4u * params.row_step + k / PER_WORD * params.word_step;
  let codes = convert_codes(table[at] >> (k % PER_WORD * BITS));
  let packed_scales = scales[token / 4u * params.scale_quad_step + k / params.group_size * params.scale_group_step];
  {% if scales == "float16_and_min" %}
  let values = codes * four_scales(packed_scales)[token % 4u] + four_mins(packed_scales)[token % 4u];
  {% else %}
  let values = codes * four_scales(packed_scales)[token % 4u];
  {% endif %}
  {% if vec4_out %}
  out[i] = values;
  {% else %}
  for (var j = 0u; j < min(4u, params.width - k); j++) {
    out[r * params.width + k + j] = values[j];
  }
  {% endif %}
}
