{#
The largest finite magnitude in each of some chunks of every image, for split_channels.

A workgroup takes a chunk.
#}
@group(0) @binding(0) var<storage, read> x: array<f32>;  // [images, n]
@group(0) @binding(1) var<storage, read_write> largest: array<f32>;  // [images, chunks]

struct Params {
  n: u32,
  chunks: u32,
  chunk: u32,   // elements
  images: u32,
}
@group(0) @binding(2) var<uniform> params: Params;

{% include "wgsl/workgroup_reduce.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let item = group.x + group.y * groups.x;
  if (item >= params.images * params.chunks) {
    return;
  }
  let first = item / params.chunks * params.n;
  let start = item % params.chunks * params.chunk;
  let end = min(start + params.chunk, params.n);
  var most = 0u;  // bits of a magnitude, which are ordered like it
  for (var i = start + lane; i < end; i += wg_size) {
    let bits = bitcast<u32>(x[first + i]) & 0x7fffffffu;
    most = max(most, select(0u, bits, bits < 0x7f800000u));
  }
  let result = workgroup_max(bitcast<f32>(most), lane);
  if (lane == 0u) {
    largest[item] = result;
  }
}
