{#
Dequantized rows of a table of codes, those that indices name. Four elements of out per invocation.

Inputs:
  bits = 8 | 4 | 2: of a code; of two codes of 4 bits in a byte, the first one is the high one, of four codes of 2 the low one
  signed = True | False: codes of 8 bits are; of others, half of their range is subtracted
  scale = "float32" | "float16" | "bfloat16": dtype
  zeros = False | True: whether there are zero points, of the dtype of scales
  out = "float32" | "float16" | "bfloat16": dtype
#}
@group(0) @binding(0) var<storage, read> table: array<u32>;  // bytes [rows, row_bytes]
@group(0) @binding(1) var<storage, read> scales: array<{{ scale }}_word>;  // [rows, groups]
{% if zeros %}
@group(0) @binding(2) var<storage, read> zeros: array<{{ scale }}_word>;
{% endif %}
@group(0) @binding(3) var<storage, read> indices: array<i32>;
@group(0) @binding(4) var<storage, read_write> out: array<{{ out }}_quad>;

struct Params {
  n: u32,
  width: u32,
  row_bytes: u32,
  groups: u32,
  group_size: u32,
  last: i32,  // the last row of the table
}
@group(0) @binding(5) var<uniform> params: Params;

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}

fn code_at(row: u32, column: u32) -> f32 {
  let byte = row * params.row_bytes + column / {{ 8 // bits }}u;
  {% if bits == 8 %}
  let shift = byte % 4u * 8u;
  {% elif bits == 4 %}
  let shift = byte % 4u * 8u + 4u - column % 2u * 4u;
  {% else %}
  let shift = byte % 4u * 8u + column % 4u * 2u;
  {% endif %}
  {% if bits == 8 and signed %}
  return f32(extractBits(bitcast<i32>(table[byte / 4u]), shift, 8u));
  {% else %}
  return f32(extractBits(table[byte / 4u], shift, {{ bits }}u)) - {{ 0 if bits == 8 else 2 ** (bits - 1) }}.0;
  {% endif %}
}

fn element(i: u32) -> f32 {
  let place = min(i, params.n - 1u);
  let which = place / params.width;
  let column = place - which * params.width;
  let row = u32(clamp(indices[which], 0, params.last));
  let group = row * params.groups + column / params.group_size;
  let scale = f32(element_{{ scale }}(scales[group / {{ scale }}_per_word], group));
  {% if zeros %}
  let zero = f32(element_{{ scale }}(zeros[group / {{ scale }}_per_word], group));
  return (code_at(row, column) - zero) * scale;
  {% else %}
  return code_at(row, column) * scale;
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
  let numbers = vec4<f32>(element(i * 4u), element(i * 4u + 1u), element(i * 4u + 2u), element(i * 4u + 3u));
  out[i] = pack_{{ out }}({{ out }}_numbers(numbers));
}
