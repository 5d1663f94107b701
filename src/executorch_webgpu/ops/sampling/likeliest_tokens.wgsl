{#
Of each chunk of a row's logits what log probabilities need: the largest, the sum of exp(logit - largest), likely tokens.

One workgroup takes a chunk, whose size does not depend on how many rows there are, so neither does the sum. Rows that
ask for no log probabilities are skipped.
#}
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read> draws: array<Draw>;  // [rows]
// [rows, chunks, 1 + MOST]: rank of the largest and the sum (f32); then the likeliest tokens in order: rank and id.
@group(0) @binding(2) var<storage, read_write> found: array<vec2<u32>>;
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  vocab: u32,
  first: u32,  // row
}

const EACH = 8u;  // tokens of an invocation


{% include "sampling/draw.wgsl" %}
{% include "sampling/ordered.wgsl" %}
{% include "wgsl/workgroup_reduce.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let place = params.first + group.y;
  let asked = draws[place].likeliest;
  if (asked == 0u) {
    return;
  }
  let record = (group.y * groups.x + group.x) * (1u + MOST);
  let base = group.x * EACH * wg_size + lane;
  var ranks: array<u32, EACH>;  // 0 past the end of the vocabulary
  var most = 0u;
  for (var j = 0u; j < EACH; j++) {
    let id = base + j * wg_size;
    if (id < params.vocab) {
      ranks[j] = rank_of(logits[place * params.vocab + id]);
    }
    most = max(most, ranks[j]);
  }
  if (lane == 0u) {
    atomicStore(&top, 0u);
  }
  workgroupBarrier();
  atomicMax(&top, most);
  workgroupBarrier();
  let rank = atomicLoad(&top);
  let largest = bits_of(rank);
  var sum = 0.0;
  for (var j = 0u; j < EACH; j++) {
    let bits = bits_of(ranks[j]);
    if (is_finite(bits) && is_finite(largest)) {
      sum += exp(bitcast<f32>(bits) - bitcast<f32>(largest));
    }
  }
  sum = workgroup_sum(sum, lane);
  if (lane == 0u) {
    found[record] = vec2<u32>(rank, bitcast<u32>(sum));
  }
  var last = BEFORE_ALL;
  for (var i = 0u; i < min(asked - 1u, MOST); i++) {
    var best = AFTER_ALL;
    for (var j = 0u; j < EACH; j++) {
      let token = vec2<u32>(ranks[j], base + j * wg_size);
      if (comes_before(last, token) && comes_before(token, best)) {
        best = token;
      }
    }
    last = first_of_all(best, lane);
    if (lane == 0u) {
      found[record + 1u + i] = last;
    }
  }
}
