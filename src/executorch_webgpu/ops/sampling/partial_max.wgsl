{#
The largest logits of disjoint parts of the vocabulary, by rank. Empties the list of candidates.

A workgroup's share of a row is in as many parts as the parameters say.

Inputs:
  rows = False | True: one row; or rows along y, without those that nothing filters
#}
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read_write> maxima: array<u32>;  // [rows, workgroups, parts]
@group(0) @binding(2) var<storage, read_write> candidates: array<u32>;  // [rows, 1 + vocab]: how many, and their ids
@group(0) @binding(3) var<uniform> params: Params;
{% if rows %}
@group(0) @binding(4) var<storage, read> draws: array<Draw>;  // [rows]
{% else %}
@group(0) @binding(4) var<uniform> row: i32;
{% endif %}

struct Params {
  vocab: u32,
  parts: u32,  // at most one for each invocation
{% if rows %}
  first: u32,  // row
{% endif %}
}

override wg_size: u32 = 256;

var<workgroup> tops: array<atomic<u32>, wg_size>;

{% include "sampling/draw.wgsl" %}
{% include "wgsl/float_order.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(global_invocation_id) gid: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  {% if rows %}
  let place = params.first + group.y;
  if (!is_filtered(draws[place])) {
    return;
  }
  {% else %}
  let place = u32(row);
  {% endif %}
  atomicStore(&tops[lane], 0u);
  let start = place * params.vocab;
  var most = 0u;
  for (var id = gid.x; id < params.vocab; id += groups.x * wg_size) {
    most = max(most, rank_of(logits[start + id]));
  }
  workgroupBarrier();
  atomicMax(&tops[lane % params.parts], most);
  workgroupBarrier();
  if (lane < params.parts) {
    maxima[(group.y * groups.x + group.x) * params.parts + lane] = atomicLoad(&tops[lane]);
  }
  if (lane == 0u && group.x == 0u) {
    candidates[group.y * (1u + params.vocab)] = 0u;
  }
}
