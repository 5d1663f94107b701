{#
A row of logits after the repetition penalty, which makes tokens that the text has less likely.
#}
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read> seen: array<u32>;  // [vocab / 32]: a bit for each token
@group(0) @binding(2) var<storage, read_write> penalized: array<u32>;  // bits of f32 [vocab]
@group(0) @binding(3) var<uniform> params: Params;
@group(0) @binding(4) var<uniform> row: i32;

struct Params {
  vocab: u32,
  positive: f32,  // what positive logits are multiplied by
  negative: f32,  // and others
}

override wg_size: u32 = 256;

const LARGEST = 0x1.fffffep127;

{% include "wgsl/float_order.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let start = u32(row) * params.vocab;
  for (var id = gid.x; id < params.vocab; id += groups.x * wg_size) {
    let bits = logits[start + id];
    var result = bits;
    if (((seen[id / 32u] >> (id % 32u)) & 1u) == 1u && is_finite(bits)) {
      let logit = bitcast<f32>(bits);
      result = bitcast<u32>(clamp(logit * select(params.negative, params.positive, logit > 0.0), -LARGEST, LARGEST));
    }
    penalized[id] = result;
  }
}
