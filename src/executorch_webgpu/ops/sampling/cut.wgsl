// Where top-k and top-p cut the vocabulary, in the order of falling logits and, of equal ones, of rising ids.
//
// A token stands in this order by two words, its rank and ~id, of which larger ones come first. One workgroup finds the
// last token that is kept by radix selection, eight bits of these words at a time from the top: how much lies in each
// of 256 bins says in which one the cut is. Top-k counts tokens; top-p adds up weights, which are integers
// exp((logit - largest) / temperature) * 2^31, so that sums are exact in any order.
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read_write> cut: array<u32>;  // rank and ~id of the last token that is kept
@group(0) @binding(2) var<uniform> params: Params;
@group(0) @binding(3) var<uniform> row: i32;

struct Params {
  vocab: u32,
  top_k: u32,  // 0: all
  share: u32,  // top_p * 2^32, 0: all
  inverse_temperature: f32,
}

override wg_size: u32 = 256;

var<workgroup> largest: atomic<u32>;
var<workgroup> total: array<atomic<u32>, 2>;  // 64-bit sums are (low, high)
var<workgroup> low: array<atomic<u32>, 256>;
var<workgroup> high: array<atomic<u32>, 256>;
var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> chunks: array<vec2<u32>, 16>;  // sums of 16 bins each
var<workgroup> bound: vec2<u32>;  // the last token that is kept so far
var<workgroup> found: vec2<u32>;  // the words of the cut as far as they are known; zeros below
var<workgroup> missing: vec2<u32>;  // what is still to be found in the bins of these words
var<workgroup> finished: u32;

{% include "sampling/rank.wgsl" %}
{% include "sampling/wide.wgsl" %}

fn add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let sum = a.x + b.x;
  return vec2<u32>(sum, a.y + b.y + select(0u, 1u, sum < a.x));
}

fn subtract(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn at_least(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.y > b.y || (a.y == b.y && a.x >= b.x);
}

fn weight_of(bits: u32) -> u32 {
  if (!is_finite(bits)) {
    return 0u;
  }
  let rank = atomicLoad(&largest);
  let most = bitcast<f32>(select(~rank, rank & 0x7fffffffu, rank >= 0x80000000u));
  return u32(min(exp(max((bitcast<f32>(bits) - most) * params.inverse_temperature, -100.0)), 1.0) * 2147483648.0);
}

fn is_kept(place: vec2<u32>) -> bool {
  return place.x > bound.x || (place.x == bound.x && place.y >= bound.y);
}

// Sort what lies in the bins of `found` into finer ones.
fn fill_bins(lane: u32, digit: u32, by_weight: bool) {
  let start = u32(row) * params.vocab;
  let shift = 24u - 8u * (digit % 4u);
  let above = ~((256u << shift) - 1u);  // bits of the word that the bins before have in common
  for (var id = lane; id < params.vocab; id += wg_size) {
    let bits = logits[start + id];
    let place = vec2<u32>(rank_of(bits), ~id);
    let word = select(place.x, place.y, digit >= 4u);
    let known = select(found.x, found.y, digit >= 4u);
    if (((word ^ known) & above) == 0u && (digit < 4u || place.x == found.x) && (!by_weight || is_kept(place))) {
      let bin = (word >> shift) & 255u;
      let weight = select(1u, weight_of(bits), by_weight);
      atomicAdd(&counts[bin], 1u);
      if (atomicAdd(&low[bin], weight) > 0xffffffffu - weight) {
        atomicAdd(&high[bin], 1u);
      }
    }
  }
}

// In one invocation: go down the bins to the one with the cut.
fn choose_bin(digit: u32, by_weight: bool) {
  var left = missing;
  var chunk = 15u;
  while (chunk > 0u && !at_least(chunks[chunk], left)) {
    left = subtract(left, chunks[chunk]);
    chunk--;
  }
  var bin = chunk * 16u + 15u;
  var inside = vec2<u32>(atomicLoad(&low[bin]), atomicLoad(&high[bin]));
  while (bin > chunk * 16u && !at_least(inside, left)) {
    left = subtract(left, inside);
    bin--;
    inside = vec2<u32>(atomicLoad(&low[bin]), atomicLoad(&high[bin]));
  }
  let part = bin << (24u - 8u * (digit % 4u));
  found += select(vec2<u32>(part, 0u), vec2<u32>(0u, part), digit >= 4u);
  missing = left;
  // The whole bin is kept when it is a single token, or as many as are needed; weights may be zero.
  if (atomicLoad(&counts[bin]) == 1u || (!by_weight && all(inside == left))) {
    finished = 1u;
  }
}

// Cut where the sum over the first tokens, of those that are kept so far, reaches `target_sum`.
fn select_cut(lane: u32, target_sum: vec2<u32>, by_weight: bool) {
  if (lane == 0u) {
    found = vec2<u32>(0u);
    missing = target_sum;
    finished = 0u;
  }
  for (var digit = 0u; digit < 8u; digit++) {
    for (var bin = lane; bin < 256u; bin += wg_size) {
      atomicStore(&low[bin], 0u);
      atomicStore(&high[bin], 0u);
      atomicStore(&counts[bin], 0u);
    }
    workgroupBarrier();
    let done = finished != 0u;
    if (!done) {
      fill_bins(lane, digit, by_weight);
    }
    workgroupBarrier();
    if (lane < 16u) {
      var sum = vec2<u32>(0u);
      for (var bin = lane * 16u; bin < lane * 16u + 16u; bin++) {
        sum = add(sum, vec2<u32>(atomicLoad(&low[bin]), atomicLoad(&high[bin])));
      }
      chunks[lane] = sum;
    }
    workgroupBarrier();
    if (lane == 0u && !done) {
      choose_bin(digit, by_weight);
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    bound = found;
  }
  workgroupBarrier();
}

@compute @workgroup_size(wg_size)
fn main(@builtin(local_invocation_index) lane: u32) {
  if (lane == 0u) {
    atomicStore(&largest, 0u);
    atomicStore(&total[0], 0u);
    atomicStore(&total[1], 0u);
    bound = vec2<u32>(0u);
  }
  workgroupBarrier();
  let start = u32(row) * params.vocab;
  var most = 0u;
  for (var id = lane; id < params.vocab; id += wg_size) {
    most = max(most, rank_of(logits[start + id]));
  }
  atomicMax(&largest, most);
  workgroupBarrier();
  if (params.top_k > 0u) {
    select_cut(lane, vec2<u32>(params.top_k, 0u), false);
  }
  if (params.share > 0u) {
    var sum = vec2<u32>(0u);
    for (var id = lane; id < params.vocab; id += wg_size) {
      let bits = logits[start + id];
      if (is_kept(vec2<u32>(rank_of(bits), ~id))) {
        sum = add(sum, vec2<u32>(weight_of(bits), 0u));
      }
    }
    if (atomicAdd(&total[0], sum.x) > 0xffffffffu - sum.x) {
      atomicAdd(&total[1], 1u);
    }
    atomicAdd(&total[1], sum.y);
    workgroupBarrier();
    // ceil(total * share / 2^32)
    let fraction = wide_multiply(atomicLoad(&total[0]), params.share);
    let whole = wide_multiply(atomicLoad(&total[1]), params.share);
    let target_sum = add(add(whole, vec2<u32>(fraction.y, 0u)), vec2<u32>(select(0u, 1u, fraction.x > 0u), 0u));
    select_cut(lane, target_sum, true);
  }
  if (lane == 0u) {
    cut[0] = bound.x;
    cut[1] = bound.y;
  }
}
