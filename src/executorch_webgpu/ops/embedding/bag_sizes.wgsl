{#
Which bag each index is in, and how many indices of each bag count.
#}
@group(0) @binding(0) var<storage, read> indices: array<i32>;  // [count]
@group(0) @binding(1) var<storage, read> offsets: array<i32>;  // where the indices of a bag begin
@group(0) @binding(2) var<storage, read_write> bags: array<i32>;  // [count or 0]
@group(0) @binding(3) var<storage, read_write> sizes: array<i32>;
@group(0) @binding(4) var<uniform> params: Params;

struct Params {
  n: u32,  // invocations: the larger number of elements of both results
  count: u32,
  offsets: u32,
  bags: u32,
  indices: u32,  // elements of bags
  sizes: u32,  // elements of sizes; those beyond the bags are 0
  padding: i32,
  counted: u32,  // whether sizes are asked for; else they are 0
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

// Where the indices of a bag begin; the bag after the last one begins at their end.
fn bag_start(bag: u32) -> u32 {
  if (bag >= params.offsets) {
    return params.count;
  }
  return u32(clamp(offsets[bag], 0, i32(params.count)));
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  if (i < params.sizes) {
    var size = 0;
    if (i < params.bags && params.counted != 0u) {
      let end = bag_start(i + 1u);
      for (var j = bag_start(i); j < end; j++) {
        size += i32(indices[j] != params.padding);
      }
    }
    sizes[i] = size;
  }
  if (i < params.indices) {
    var low = 0u;  // the first bag that begins after this index
    var high = params.bags;
    while (low < high) {
      let middle = (low + high) / 2u;
      if (bag_start(middle) <= i) {
        low = middle + 1u;
      } else {
        high = middle;
      }
    }
    bags[i] = i32(max(low, 1u)) - 1;
  }
}
