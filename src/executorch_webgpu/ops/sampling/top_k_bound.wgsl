{#
A bound below the top_k-th largest logit: the top_k-th largest of the workgroups' maxima. One workgroup.

It is 0, which is below all ranks, when there are fewer of them.
#}
@group(0) @binding(0) var<storage, read> maxima: array<u32>;  // [groups], at most one for each invocation
@group(0) @binding(1) var<storage, read_write> bound: array<u32>;  // [1]
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  groups: u32,
  top_k: u32,
}

override wg_size: u32 = 256;

var<workgroup> ranks: array<u32, wg_size>;

@compute @workgroup_size(wg_size)
fn main(@builtin(local_invocation_index) lane: u32) {
  if (lane < params.groups) {
    ranks[lane] = maxima[lane];
  }
  if (lane == 0u && params.top_k > params.groups) {
    bound[0] = 0u;
  }
  workgroupBarrier();
  if (lane >= params.groups) {
    return;
  }
  var before = 0u;
  for (var i = 0u; i < params.groups; i++) {
    before += u32(ranks[i] > ranks[lane] || (ranks[i] == ranks[lane] && i < lane));
  }
  if (before + 1u == params.top_k) {
    bound[0] = ranks[lane];
  }
}
