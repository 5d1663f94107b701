{#
counts[c] = how many elements of chunk c of a mask hold.
#}
@group(0) @binding(0) var<storage, read> mask: array<u32>;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  n: u32,
  chunk: u32,  // elements
  chunks: u32,
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let c = linear_index(gid, groups, wg_size);
  if (c >= params.chunks) {
    return;
  }
  var count = 0u;
  for (var i = c * params.chunk; i < min((c + 1u) * params.chunk, params.n); i++) {
    count += u32(mask[i] != 0u);
  }
  counts[c] = count;
}
