{#
What values of a chunk of sorted sources are together, for each line, where all of the chunk have one address.

Other chunks have no total, and nobody asks for one.

Inputs:
  reduce = "add" | "mul" | "mean" | "amax" | "amin": what is made of values
  dtype = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "bool" | "uint8" | "int8": of values
  lanes = 1 | 2 | 4: elements of that in a word
  number = False | True: whether one number stands for all values
#}
@group(0) @binding(0) var<storage, read> sources: array<vec2<u32>>;  // address and number
@group(0) @binding(1) var<storage, read_write> totals: array<Number>;  // [chunks, lines]
@group(0) @binding(2) var<uniform> params: Params;
{% if not number %}
@group(0) @binding(3) var<storage, read> values: array<{{ dtype }}_word>;
{% endif %}

struct Params {
  dims: array<vec4<u32>, 2>,  // of lines, innermost first
  value_strides: array<vec4<u32>, 2>,
  rank: u32,
  n: u32,
  lines: u32,
  value_step: u32,  // between the values of two sources
  number: u32,  // as it lies in a word
  alpha: {{ "f32" if "float" in dtype else "i32" }},  // what added values are multiplied by
}

override wg_size: u32 = 64;

const LANES = {{ lanes }}u;
{% include "wgsl/linear_index.wgsl" %}
{% include "indexing/reduction.wgsl" %}

fn value(i: u32) -> Number {
{% if number %}
  let found = element(bitcast<{{ dtype }}_word>(params.number), 0u, LANES);
{% else %}
  let found = element(values[i / LANES], i, LANES);
{% endif %}
  return found{{ " * params.alpha" if reduce == "add" and dtype != "bool" }};
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let first = i / params.lines * CHUNK;
  if (sources[first].x != sources[first + CHUNK - 1u].x) {
    return;
  }
  var rest = i % params.lines;
  var at = 0u;
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    at += (rest - outer * size) * params.value_strides[d / 4u][d % 4u];
    rest = outer;
  }
  var total = value(at + sources[first].y * params.value_step);
  for (var p = first + 1u; p < first + CHUNK; p++) {
    total = joined(total, value(at + sources[p].y * params.value_step));
  }
  totals[i] = total;
}
