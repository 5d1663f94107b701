{#
The best of all workgroups' tokens; -1 when the best score shows that logits are not finite numbers.

One workgroup a row.

Inputs:
  rows = False | True: one row; or rows along y, without those that are filtered
#}
@group(0) @binding(0) var<storage, read> bests: array<vec2<u32>>;  // [rows, count], at most one for each invocation
@group(0) @binding(1) var<storage, read_write> out: array<i32>;  // [rows]
@group(0) @binding(2) var<uniform> params: Params;
{% if rows %}
@group(0) @binding(3) var<storage, read> draws: array<Draw>;  // [rows]
{% endif %}

struct Params {
  count: u32,
{% if rows %}
  first: u32,  // row
{% endif %}
}

override wg_size: u32 = 256;

var<workgroup> top: atomic<u32>;
var<workgroup> lowest: atomic<u32>;

{% include "sampling/draw.wgsl" %}
{% include "wgsl/float_order.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  {% if rows %}
  let place = params.first + group.y;
  if (is_filtered(draws[place])) {
    return;
  }
  {% else %}
  let place = 0u;
  {% endif %}
  if (lane == 0u) {
    atomicStore(&top, 0u);
    atomicStore(&lowest, 0xffffffffu);
  }
  var best = vec2<u32>(0u, 0xffffffffu);
  if (lane < params.count) {
    best = bests[group.y * params.count + lane];
  }
  workgroupBarrier();
  atomicMax(&top, best.x);
  workgroupBarrier();
  if (best.x == atomicLoad(&top)) {
    atomicMin(&lowest, best.y);
  }
  workgroupBarrier();
  if (lane == 0u) {
    let rank = atomicLoad(&top);
    let broken = rank >= RANK_OF_INFINITY || rank <= RANK_OF_NEGATIVE_INFINITY;
    out[place] = select(i32(atomicLoad(&lowest)), -1, broken);
  }
}
