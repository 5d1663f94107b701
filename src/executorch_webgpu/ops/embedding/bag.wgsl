{#
Sum, mean or maximum of the rows of a table that each bag of indices names; an invocation makes four elements.

Inputs:
  mode = "sum" | "mean" | "max": what is made of rows
  result = "values" | "rows": that, or from which rows maxima are
  dtype = "float32" | "float16" | "bfloat16": of the table, the weights and out
  weighted = False | True: whether every index has a weight
#}
{% set out_dtype = "int32" if result == "rows" else dtype %}
@group(0) @binding(0) var<storage, read> table: array<{{ dtype }}_word>;  // [rows, width]
@group(0) @binding(1) var<storage, read> indices: array<i32>;  // [count]
@group(0) @binding(2) var<storage, read> offsets: array<i32>;  // where the indices of a bag begin
@group(0) @binding(3) var<storage, read_write> out: array<{{ out_dtype }}_quad>;  // [bags, width]
@group(0) @binding(4) var<uniform> params: Params;
{% if weighted %}
@group(0) @binding(5) var<storage, read> weights: array<{{ dtype }}_word>;  // [count]
{% endif %}

struct Params {
  n: u32,
  width: u32,
  rows: u32,
  count: u32,
  offsets: u32,
  padding: i32,  // the row that does not count; -1: none
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}

// Where the indices of a bag begin; the bag after the last one begins at their end.
fn bag_start(bag: u32) -> u32 {
  if (bag >= params.offsets) {
    return params.count;
  }
  return u32(clamp(offsets[bag], 0, i32(params.count)));
}

fn of_bag(bag: u32, column: u32) -> {{ "i32" if result == "rows" else "f32" }} {
  var total = 0.0;
  var count = 0u;
  var best = 0;
  let end = bag_start(bag + 1u);
  for (var i = bag_start(bag); i < end; i++) {
    let row = clamp(indices[i], 0, i32(params.rows) - 1);
    if (row == params.padding) {
      continue;
    }
    let at = u32(row) * params.width + column;
    var value = element_{{ dtype }}(table[at / {{ dtype }}_per_word], at);
{% if weighted %}
    value *= element_{{ dtype }}(weights[i / {{ dtype }}_per_word], i);
{% endif %}
{% if mode == "max" %}
    if (count == 0u || value > total) {
      total = value;
      best = row;
    }
{% else %}
    total += value;
{% endif %}
    count++;
  }
{% if result == "rows" %}
  return best;
{% elif mode == "mean" %}
  return total / f32(max(count, 1u));
{% else %}
  return total;
{% endif %}
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
  var numbers = {{ out_dtype }}_numbers();
  for (var lane = 0u; lane < 4u; lane++) {
    let e = min(i * 4u + lane, params.n - 1u);
    numbers[lane] = of_bag(e / params.width, e % params.width);
  }
  out[i] = pack_{{ out_dtype }}(numbers);
}
