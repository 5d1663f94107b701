{#
A bound below the top_k-th largest logit: the top_k-th largest of the maxima of parts. One workgroup a row.

It is 0, which is below all ranks, when there are fewer of them.

Inputs:
  rows = False | True: one row; or rows along y, without those that have no top-k
#}
@group(0) @binding(0) var<storage, read> maxima: array<u32>;  // [rows, count], at most one for each invocation
@group(0) @binding(1) var<storage, read_write> bound: array<u32>;  // [rows]
@group(0) @binding(2) var<uniform> params: Params;
{% if rows %}
@group(0) @binding(3) var<storage, read> draws: array<Draw>;  // [rows]
{% endif %}

struct Params {
  count: u32,
{% if rows %}
  first: u32,  // row
{% else %}
  top_k: u32,
{% endif %}
}

override wg_size: u32 = 256;

var<workgroup> ranks: array<u32, wg_size>;

{% include "sampling/draw.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  {% if rows %}
  let top_k = draws[params.first + group.y].top_k;
  if (top_k == 0u) {
    return;
  }
  {% else %}
  let top_k = params.top_k;
  {% endif %}
  if (lane < params.count) {
    ranks[lane] = maxima[group.y * params.count + lane];
  }
  if (lane == 0u && top_k > params.count) {
    bound[group.y] = 0u;
  }
  workgroupBarrier();
  if (lane >= params.count) {
    return;
  }
  var before = 0u;
  for (var i = 0u; i < params.count; i++) {
    before += u32(ranks[i] > ranks[lane] || (ranks[i] == ranks[lane] && i < lane));
  }
  if (before + 1u == top_k) {
    bound[group.y] = ranks[lane];
  }
}
