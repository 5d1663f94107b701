{#
The smallest and the largest element of every block of x, and what becomes of them.

A workgroup takes a part of a block, and parameters.wgsl joins the parts; or, to the end, four blocks one after the other.

Inputs:
  finish = False | True: a workgroup computes scales and zero points
  x = "float32" | "float16" | "bfloat16": dtype
  mapping = "asymmetric" | "least_error" | "symmetric" | "no_clipping" | "magnitude": see parameters.py, to the end
  scale = "float32" | "float16" | "bfloat16": dtype
  zero = "int8" | "uint8" | "int16" | "int32" | "float32": dtype
#}
@group(0) @binding(0) var<storage, read> input: array<{{ x }}_word>;
{% if finish %}
@group(0) @binding(1) var<storage, read_write> scales: array<{{ scale }}_quad>;
@group(0) @binding(3) var<storage, read_write> zeros: array<{{ zero }}_quad>;
{% else %}
@group(0) @binding(1) var<storage, read_write> extremes: array<vec4<f32>>;  // [blocks, parts]: least, largest, 1 if one is NaN
{% endif %}
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  blocks: u32,
  size: u32,  // elements of a block
{% if finish %}
  range: vec4<f32>,  // see mapping.wgsl
{% else %}
  parts: u32,
  chunk: u32,  // elements of a part
{% endif %}
  outer_rank: u32,
  outer_dims: array<vec4<u32>, 2>,     // blocks along each dimension, innermost first
  outer_strides: array<vec4<u32>, 2>,  // in elements of x
  inner_rank: u32,
  inner_dims: array<vec4<u32>, 2>,     // and elements of a block
  inner_strides: array<vec4<u32>, 2>,
}

{% include "wgsl/elements.wgsl" %}
{% include "wgsl/workgroup_reduce.wgsl" %}
{% if finish %}
{% include "quantize/mapping.wgsl" %}
{% endif %}

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

// The smallest element, the largest, and 1 if one is NaN, of elements `first` to `end` of a block. All invocations get them.
fn extremes_of(block: u32, first: u32, end: u32, lane: u32) -> vec3<f32> {
  let start = start_of(block);
  var least = 3.4028234e38;
  var largest = -3.4028234e38;
  var nan = 0.0;
  for (var i = first + lane; i < end; i += wg_size) {
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
  return vec3<f32>(least, largest, workgroup_max(nan, lane));
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = group.x + group.y * groups.x;
  {% if finish %}
  if (index * 4u >= params.blocks) {
    return;
  }
  var scale = vec4<f32>();
  var zero = vec4<f32>();
  var nan = vec4<f32>();
  for (var j = 0u; j < min(4u, params.blocks - index * 4u); j++) {
    let found = extremes_of(index * 4u + j, 0u, params.size, lane);
    let of_block = parameters_of(found, params.range);
    scale[j] = of_block.x;
    zero[j] = of_block.y;
    nan[j] = found.z;
  }
  if (lane == 0u) {
    scales[index] = pack_{{ scale }}({{ scale }}_numbers(with_nan(scale, nan)));
    zeros[index] = pack_{{ zero }}({{ zero }}_numbers(stored_zeros(zero, nan, params.range)));
  }
  {% else %}
  if (index >= params.blocks * params.parts) {
    return;
  }
  let first = index % params.parts * params.chunk;
  let found = extremes_of(index / params.parts, first, min(first + params.chunk, params.size), lane);
  if (lane == 0u) {
    extremes[index] = vec4<f32>(found, 0.0);
  }
  {% endif %}
}
