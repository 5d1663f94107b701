{#
The largest logit of each workgroup's share of the vocabulary, by rank. Empties the list of candidates.
#}
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read_write> maxima: array<u32>;  // [workgroups]
@group(0) @binding(2) var<storage, read_write> candidates: array<u32>;  // [1 + vocab]: how many, and their ids
@group(0) @binding(3) var<uniform> params: Params;
@group(0) @binding(4) var<uniform> row: i32;

struct Params {
  vocab: u32,
}

override wg_size: u32 = 256;

var<workgroup> top: atomic<u32>;

{% include "wgsl/float_order.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(global_invocation_id) gid: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  if (lane == 0u) {
    atomicStore(&top, 0u);
  }
  let start = u32(row) * params.vocab;
  var most = 0u;
  for (var id = gid.x; id < params.vocab; id += groups.x * wg_size) {
    most = max(most, rank_of(logits[start + id]));
  }
  workgroupBarrier();
  atomicMax(&top, most);
  workgroupBarrier();
  if (lane == 0u) {
    maxima[group.x] = atomicLoad(&top);
    if (group.x == 0u) {
      candidates[0] = 0u;
    }
  }
}
