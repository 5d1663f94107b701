{#
out = where each value belongs among sorted boundaries: how many of them are below it, or at most as large.

Inputs:
  boundaries = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "uint8" | "int8": dtype
  values = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "uint8" | "int8" | "number": dtype; a number of the call
  compute = "f32" | "i32": in which they are compared
  sorter = False | True: whether the order of the boundaries is given beside them
#}
@group(0) @binding(0) var<storage, read> boundaries: array<{{ boundaries }}_word>;  // [rows or 1, size]
@group(0) @binding(1) var<storage, read_write> out: array<i32>;  // [rows, columns]
@group(0) @binding(2) var<uniform> params: Params;
{% if values != "number" %}
@group(0) @binding(3) var<storage, read> values: array<{{ values }}_word>;
{% endif %}
{% if sorter %}
@group(0) @binding(4) var<storage, read> sorter: array<i32>;
{% endif %}

struct Params {
  n: u32,
  columns: u32,
  size: u32,
  row_step: u32,  // from the boundaries of a row to those of the next one
  right: u32,  // whether boundaries that are equal to a value are counted
  number: {{ compute }},
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/float_order.wgsl" %}

{% if compute == "f32" %}
fn is_before(boundary: f32, value: f32) -> bool {
  let ranks = vec2<u32>(rank_of(bitcast<u32>(boundary)), rank_of(bitcast<u32>(value)));
  return max(ranks.x, ranks.y) == 0xffffffffu || ranks.x < ranks.y || (params.right != 0u && ranks.x == ranks.y);
}
{% else %}
fn is_before(boundary: i32, value: i32) -> bool {
  return boundary < value || (params.right != 0u && boundary == value);
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
{% if values == "number" %}
  let value = params.number;
{% else %}
  let value = {{ compute }}(element_{{ values }}(values[i / {{ values }}_per_word], i));
{% endif %}
  let row = i / params.columns * params.row_step;
  var low = 0u;
  var high = params.size;
  while (low < high) {
    let middle = (low + high) / 2u;
{% if sorter %}
    let at = row + u32(clamp(sorter[row + middle], 0, i32(params.size) - 1));
{% else %}
    let at = row + middle;
{% endif %}
    let boundary = {{ compute }}(element_{{ boundaries }}(boundaries[at / {{ boundaries }}_per_word], at));
    if (is_before(boundary, value)) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  out[i] = i32(low);
}
