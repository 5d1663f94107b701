{#
Makes the logits of tokens that a row does not allow negative infinity, in place. Rows without a mask are skipped.
#}
@group(0) @binding(0) var<storage, read_write> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read> draws: array<Draw>;  // [rows]
@group(0) @binding(2) var<storage, read> masks: array<u32>;  // [count, ceil(vocab / 32)]: a bit for each token
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  vocab: u32,
  first: u32,  // row
  count: u32,  // masks of all rows
}

override wg_size: u32 = 256;

{% include "sampling/draw.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(global_invocation_id) gid: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(workgroup_id) group: vec3<u32>,
) {
  let place = params.first + group.y;
  let draw = draws[place];
  if ((draw.kinds & IS_MASKED) == 0u || draw.mask >= params.count) {
    return;
  }
  let words = (params.vocab + 31u) / 32u;
  for (var id = gid.x; id < params.vocab; id += groups.x * wg_size) {
    if (((masks[draw.mask * words + id / 32u] >> (id % 32u)) & 1u) == 0u) {
      logits[place * params.vocab + id] = 0xff800000u;
    }
  }
}
