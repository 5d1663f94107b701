// A token drawn among the candidates that top-k, top-p and min-p keep; -1 when logits are not finite numbers. One workgroup.
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read> peaks: array<u32>;  // [groups], at most one for each invocation
@group(0) @binding(2) var<storage, read> totals: array<vec2<u32>>;  // [groups]
@group(0) @binding(3) var<storage, read> candidates: array<u32>;  // [1 + vocab]: how many, and their ids
@group(0) @binding(4) var<storage, read_write> out: array<i32>;  // [1]
@group(0) @binding(5) var<uniform> params: Params;
@group(0) @binding(6) var<uniform> row: i32;
@group(0) @binding(7) var<uniform> position: i32;

struct Params {
  vocab: u32,
  groups: u32,
  top_k: u32,  // 0: all
  share: u32,  // top_p * 2^32, 0: all
  temperature: f32,
  inverse_temperature: f32,
  margin: f32,  // of min-p
  seed: vec2<u32>,
}

override wg_size: u32 = 256;

var<workgroup> top: atomic<u32>;
var<workgroup> best: atomic<u32>;
var<workgroup> lowest: atomic<u32>;
var<workgroup> total: array<atomic<u32>, 2>;

{% include "sampling/rank.wgsl" %}
{% include "sampling/wide.wgsl" %}
{% include "sampling/noise.wgsl" %}
{% include "sampling/weight.wgsl" %}
{% include "sampling/select.wgsl" %}

// What an invocation has of the weights of all tokens, or of those that top-k keeps.
fn weights_of(lane: u32, largest: u32) -> vec2<u32> {
  var sum = vec2<u32>(0u);
  if (params.top_k == 0u) {
    if (lane < params.groups) {
      sum = totals[lane];
    }
    return sum;
  }
  let start = u32(row) * params.vocab;
  for (var i = lane; i < candidates[0]; i += wg_size) {
    let id = candidates[1u + i];
    let bits = logits[start + id];
    if (is_kept(vec2<u32>(rank_of(bits), ~id))) {
      sum = wide_add(sum, vec2<u32>(weight_of(bits, largest), 0u));
    }
  }
  return sum;
}

// (rank of the score, id) of the best of an invocation's candidates.
fn draw(lane: u32, largest: u32) -> vec2<u32> {
  let start = u32(row) * params.vocab;
  var drawn = vec2<u32>(0u, 0xffffffffu);
  for (var i = lane; i < candidates[0]; i += wg_size) {
    let id = candidates[1u + i];
    let bits = logits[start + id];
    if (is_near(bits, largest, params.margin) && is_kept(vec2<u32>(rank_of(bits), ~id))) {
      let random = philox(vec4<u32>(id / 4u, u32(position), 0u, 0u), params.seed);
      let score = rank_of(bitcast<u32>(bitcast<f32>(bits) + params.temperature * gumbel(random[id % 4u])));
      if (score > drawn.x || (score == drawn.x && id < drawn.y)) {
        drawn = vec2<u32>(score, id);
      }
    }
  }
  return drawn;
}

@compute @workgroup_size(wg_size)
fn main(@builtin(local_invocation_index) lane: u32) {
  if (lane == 0u) {
    atomicStore(&top, 0u);
    atomicStore(&best, 0u);
    atomicStore(&lowest, 0xffffffffu);
    atomicStore(&total[0], 0u);
    atomicStore(&total[1], 0u);
    bound = vec2<u32>(0u);
  }
  workgroupBarrier();
  if (lane < params.groups) {
    atomicMax(&top, peaks[lane]);
  }
  workgroupBarrier();
  let largest = atomicLoad(&top);
  if (params.top_k > 0u) {
    select_cut(lane, vec2<u32>(params.top_k, 0u), false, largest);
  }
  if (params.share > 0u) {
    let sum = weights_of(lane, largest);
    if (atomicAdd(&total[0], sum.x) > 0xffffffffu - sum.x) {
      atomicAdd(&total[1], 1u);
    }
    atomicAdd(&total[1], sum.y);
    workgroupBarrier();
    // ceil(total * share / 2^32)
    let fraction = wide_multiply(atomicLoad(&total[0]), params.share);
    let whole = wide_multiply(atomicLoad(&total[1]), params.share);
    let goal = wide_add(wide_add(whole, vec2<u32>(fraction.y, 0u)), vec2<u32>(select(0u, 1u, fraction.x > 0u), 0u));
    select_cut(lane, goal, true, largest);
  }
  let drawn = draw(lane, largest);
  atomicMax(&best, drawn.x);
  workgroupBarrier();
  if (drawn.x == atomicLoad(&best)) {
    atomicMin(&lowest, drawn.y);
  }
  workgroupBarrier();
  if (lane == 0u) {
    let broken = largest >= POSITIVE_INFINITY || largest <= NEGATIVE_INFINITY;
    out[0] = select(i32(atomicLoad(&lowest)), -1, broken);
  }
}
