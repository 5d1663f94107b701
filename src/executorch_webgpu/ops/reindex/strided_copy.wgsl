{#
Copies a strided view of x to a strided view of out, one unit per invocation.

Inputs:
  unit = "u32" | "vec4<u32>": the WGSL type
  x_lanes = 1 | 2 | 4: elements that are packed in a unit of x
  out_lanes = 1 | 2 | 4: the same of out; if several, out's view is contiguous and an invocation gathers a word
  live = False | True: the view of x begins at a live index along a dimension
#}
@group(0) @binding(0) var<storage, read> x: array<{{ unit }}>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ unit }}>;
@group(0) @binding(2) var<uniform> params: Params;
{% if live %}
@group(0) @binding(3) var<uniform> start: i32;
{% endif %}

struct Params {
  dims: array<vec4<u32>, 2>,  // innermost first
  x_strides: array<vec4<i32>, 2>,
  out_strides: array<vec4<i32>, 2>,
  rank: u32,
  n: u32,
  x_base: i32,
  out_base: i32,
{% if live %}
  start_size: i32,
  start_stride: i32,
{% endif %}
}

override wg_size: u32 = 64;

const X_LANES = {{ x_lanes }}u;
const OUT_LANES = {{ out_lanes }}u;
const BITS = 32u / max(X_LANES, OUT_LANES);  // of an element that is packed
{% include "wgsl/linear_index.wgsl" %}

{% set views = ("x", "out") %}
{% include "reindex/offsets.wgsl" %}

fn places(i: u32) -> vec2<i32> {
  let at = offsets(i, params.rank, params.dims, params.x_strides, params.out_strides);
  return at + vec2<i32>(params.x_base{{ " + moved(start, params.start_size, params.start_stride)" if live }}, params.out_base);
}

{% if x_lanes > 1 %}
fn element(i: i32) -> {{ unit }} {
  return extractBits(x[u32(i) / X_LANES], u32(i) % X_LANES * BITS, BITS);
}
{% else %}
fn element(i: i32) -> {{ unit }} {
  return x[i];
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * OUT_LANES >= params.n) {
    return;
  }
{% if out_lanes == 1 %}
  let at = places(i);
  out[at.y] = element(at.x);
{% else %}
  var word = 0u;
  for (var lane = 0u; lane < OUT_LANES; lane++) {
    let place = places(min(i * OUT_LANES + lane, params.n - 1u)).x;
    word = insertBits(word, element(place), lane * BITS, BITS);
  }
  out[i] = word;
{% endif %}
}
