{#
Changes some logits of each row in place: a repetition penalty by factors, then a shift. Keeps what they were.

Workgroups along x share the changes of a row. What is not finite stays, and what is finite stays finite.
#}
@group(0) @binding(0) var<storage, read_write> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read> draws: array<Draw>;  // [rows]
@group(0) @binding(2) var<storage, read> changes: array<vec4<u32>>;  // [count]: token, two factors and a shift (f32)
@group(0) @binding(3) var<storage, read_write> changed: array<vec2<u32>>;  // [count]: token, and its logit before
@group(0) @binding(4) var<uniform> params: Params;

struct Params {
  vocab: u32,
  first: u32,  // row
  count: u32,  // changes of all rows
}

override wg_size: u32 = 256;

const LARGEST = 0x1.fffffep127;

{% include "sampling/draw.wgsl" %}
{% include "wgsl/float_order.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(global_invocation_id) gid: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(workgroup_id) group: vec3<u32>,
) {
  let place = params.first + group.y;
  let range = draws[place].changes;
  for (var i = range.x + gid.x; i < min(range.y, params.count); i += groups.x * wg_size) {
    let change = changes[i];
    let at = place * params.vocab + min(change.x, params.vocab - 1u);
    let bits = logits[at];
    changed[i] = vec2<u32>(change.x, bits);
    if (is_finite(bits)) {
      let logit = bitcast<f32>(bits);
      let factor = bitcast<f32>(select(change.z, change.y, logit > 0.0));
      let penalized = clamp(logit * factor, -LARGEST, LARGEST);
      logits[at] = bitcast<u32>(clamp(penalized + bitcast<f32>(change.w), -LARGEST, LARGEST));
    }
  }
}
