// out[r] = the dequantized row indices[r] of a table, four neighbouring elements per invocation. Binding 2 are the
// scales, which lie as those of linear layers do: a column of them for each row of the table.
@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> indices: array<i32>;
@group(0) @binding(3) var<storage, read_write> out: array<{{ "vec4<f32>" if quads else "f32" }}>;
@group(0) @binding(4) var<uniform> params: Params;

struct Params {
  n: u32,  // quads of elements of out
  row_quads: u32,  // those of a row, the last of which may be less
  width: u32,  // elements of a row
  group_size: u32,
  row_words: u32,  // from a row of the table to the next
  scale_quads: u32,  // from a row of scales to the next, in elements of the array
  last: i32,  // the last row of the table
}

override wg_size: u32 = 64;
{% include "common/linear_index.wgsl" %}
{% include codes ~ ".wgsl" %}
{% include scales ~ ".wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups);
  if (i >= params.n) {
    return;
  }
  let r = i / params.row_quads;
  let k = (i - r * params.row_quads) * 4u;
  let token = u32(clamp(indices[r], 0, params.last));
  let word = table[token * params.row_words + k / {{ per_word }}u] >> (k % {{ per_word }}u * {{ 32 // per_word }}u);
  let packed_scales = scales[k / params.group_size * params.scale_quads + token / 4u];
  let values = four_codes(word) * four_scales(packed_scales)[token % 4u]
    {{- " + four_mins(packed_scales)[token % 4u]" if mins }};
  {% if quads %}
  out[i] = values;
  {% else %}
  {% for j in range(4) %}
  if (k + {{ j }}u < params.width) {
    out[r * params.width + k + {{ j }}u] = values[{{ j }}];
  }
  {% endfor %}
  {% endif %}
}
