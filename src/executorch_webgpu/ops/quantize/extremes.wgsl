{#
The smallest and the largest element of every block of x. A workgroup takes a part of a block; parameters.wgsl joins the parts.

Inputs:
  x = "float32" | "float16": dtype
#}
@group(0) @binding(0) var<storage, read> input: array<{{ x }}_word>;
@group(0) @binding(1) var<storage, read_write> extremes: array<vec4<f32>>;  // [blocks, parts]: least, largest, 1 if one is NaN
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  workgroups: u32,  // blocks * parts
  parts: u32,
  size: u32,   // elements of a block
  chunk: u32,  // and of a part
  outer_rank: u32,
  outer_dims: array<vec4<u32>, 2>,     // blocks along each dimension, innermost first
  outer_strides: array<vec4<u32>, 2>,  // in elements of x
  inner_rank: u32,
  inner_dims: array<vec4<u32>, 2>,     // and elements of a block
  inner_strides: array<vec4<u32>, 2>,
}

{% include "wgsl/elements.wgsl" %}
{% include "wgsl/workgroup_reduce.wgsl" %}

fn start_of(block: u32) -> u32 {
  var rest = block;
  var at = 0u;
  for (var d = 0u; d < params.outer_rank; d++) {
    let size = params.outer_dims[d / 4u][d % 4u];
    let outer = rest / size;
    at += (rest - outer * size) * params.outer_strides[d / 4u][d % 4u];
    rest = outer;
  }
  return at;
}

fn place_of(element: u32) -> u32 {
  var rest = element;
  var at = 0u;
  for (var d = 0u; d < params.inner_rank; d++) {
    let size = params.inner_dims[d / 4u][d % 4u];
    let outer = rest / size;
    at += (rest - outer * size) * params.inner_strides[d / 4u][d % 4u];
    rest = outer;
  }
  return at;
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = group.x + group.y * groups.x;
  if (index >= params.workgroups) {
    return;
  }
  let start = start_of(index / params.parts);
  let first = index % params.parts * params.chunk;
  var least = 3.4028234e38;
  var largest = -3.4028234e38;
  var nan = 0.0;
  for (var i = first + lane; i < min(first + params.chunk, params.size); i += wg_size) {
    let at = start + place_of(i);
    let value = f32(element_{{ x }}(input[at / {{ x }}_per_word], at));
    if ((bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u) {
      nan = 1.0;
    } else {
      least = min(least, value);
      largest = max(largest, value);
    }
  }
  least = -workgroup_max(-least, lane);
  largest = workgroup_max(largest, lane);
  nan = workgroup_max(nan, lane);
  if (lane == 0u) {
    extremes[index] = vec4<f32>(least, largest, nan, 0.0);
  }
}
