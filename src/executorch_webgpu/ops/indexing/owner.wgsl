{#
The last of all sources of each address: owners[address] = 1 + its number; 0 stays where there is none.
#}
@group(0) @binding(0) var<storage, read_write> owners: array<atomic<i32>>;
@group(0) @binding(1) var<storage, read> addresses: array<i32>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  n: u32,
  size: i32,
  wraps: u32,
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "indexing/index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i < params.n) {
    atomicMax(&owners[in_range(addresses[i], params.size, params.wraps)], i32(i) + 1);
  }
}
