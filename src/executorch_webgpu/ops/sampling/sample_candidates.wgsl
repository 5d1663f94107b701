{#
A token drawn among the candidates that top-k, top-p and min-p keep; -1 when logits are not finite numbers.

One workgroup a row.

Top-k and top-p cut by radix selection in the order of falling logits and, of equal ones, of rising ids. A token stands in
this order by two words, its rank and ~id, of which larger ones come first. Eight bits of these words at a time, from the
top, how much lies in each of 256 bins says in which one the cut is. Top-k counts tokens, top-p adds up weights.

Inputs:
  rows = False | True: one row, drawn as the parameters say; or rows along y, each as its Draw says, if that filters
#}
{% set of = "draws[at.row]" if rows else "params" %}
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read> maxima: array<u32>;  // [rows, maxima], at most one for each invocation
@group(0) @binding(2) var<storage, read> totals: array<vec2<u32>>;  // [rows, groups], at most one for each invocation
@group(0) @binding(3) var<storage, read> candidates: array<u32>;  // [rows, 1 + vocab]: how many, and their ids
@group(0) @binding(4) var<storage, read_write> out: array<i32>;  // [rows]
@group(0) @binding(5) var<uniform> params: Params;
{% if rows %}
@group(0) @binding(6) var<storage, read> draws: array<Draw>;  // [rows]
{% else %}
@group(0) @binding(6) var<uniform> row: i32;
@group(0) @binding(7) var<uniform> position: i32;
{% endif %}

struct Params {
  vocab: u32,
  maxima: u32,
  groups: u32,
{% if rows %}
  first: u32,  // row
{% else %}
  top_k: u32,  // 0: all
  share: u32,  // top_p * 2^32, 0: all
  temperature: f32,
  inverse_temperature: f32,
  margin: f32,  // of min-p
  seed: vec2<u32>,
{% endif %}
}

override wg_size: u32 = 256;

var<workgroup> top: atomic<u32>;
var<workgroup> best: atomic<u32>;
var<workgroup> lowest: atomic<u32>;
var<workgroup> total: array<atomic<u32>, 2>;
var<workgroup> low: array<atomic<u32>, 256>;  // 64-bit sums
var<workgroup> high: array<atomic<u32>, 256>;
var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> chunks: array<vec2<u32>, 16>;  // sums of 16 bins each
var<workgroup> bound: vec2<u32>;  // the last token that is kept so far
var<workgroup> found: vec2<u32>;  // the words of the cut as far as they are known; zeros below
var<workgroup> missing: vec2<u32>;  // what is still to be found in the bins of these words
var<workgroup> finished: u32;

{% include "sampling/draw.wgsl" %}
{% include "sampling/gumbel.wgsl" %}
{% include "sampling/probability.wgsl" %}

// A row of the draws, the first of its logits and of its candidates, and its place among those of this dispatch. A driver for
// CPUs never frees what invocations keep of a larger struct over a barrier.
struct Place {
  row: u32,
  start: u32,
  list: u32,
  slot: u32,
}

// ---- selection ----
fn is_kept(place: vec2<u32>) -> bool {
  return place.x > bound.x || (place.x == bound.x && place.y >= bound.y);
}

fn bin_sum(bin: u32) -> vec2<u32> {
  return vec2<u32>(atomicLoad(&low[bin]), atomicLoad(&high[bin]));
}

// Sort the candidates that lie in the bins of `found` into finer ones.
fn fill_bins(at: Place, lane: u32, digit: u32, by_weight: bool, largest: u32) {
  let shift = 24u - 8u * (digit % 4u);
  let above = ~((256u << shift) - 1u);  // bits of the word that the bins before have in common
  for (var i = lane; i < candidates[at.list]; i += wg_size) {
    let id = candidates[at.list + 1u + i];
    let bits = logits[at.start + id];
    let place = vec2<u32>(rank_of(bits), ~id);
    let word = select(place.x, place.y, digit >= 4u);
    let known = select(found.x, found.y, digit >= 4u);
    if (((word ^ known) & above) == 0u && (digit < 4u || place.x == found.x) && (!by_weight || is_kept(place))) {
      let bin = (word >> shift) & 255u;
      let weight = select(1u, weight_of(bits, largest, {{ of }}.inverse_temperature), by_weight);
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
  while (chunk > 0u && !wide_at_least(chunks[chunk], left)) {
    left = wide_subtract(left, chunks[chunk]);
    chunk--;
  }
  var bin = chunk * 16u + 15u;
  while (bin > chunk * 16u && !wide_at_least(bin_sum(bin), left)) {
    left = wide_subtract(left, bin_sum(bin));
    bin--;
  }
  let part = bin << (24u - 8u * (digit % 4u));
  found += select(vec2<u32>(part, 0u), vec2<u32>(0u, part), digit >= 4u);
  missing = left;
  // The whole bin is kept when it is a single token, or as many as are needed; weights may be zero.
  if (atomicLoad(&counts[bin]) == 1u || (!by_weight && all(bin_sum(bin) == left))) {
    finished = 1u;
  }
}

// Cut where the sum over the first tokens, of those that are kept so far, reaches `goal`.
fn select_cut(at: Place, lane: u32, goal: vec2<u32>, by_weight: bool, largest: u32) {
  if (lane == 0u) {
    found = vec2<u32>(0u);
    missing = goal;
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
      fill_bins(at, lane, digit, by_weight, largest);
    }
    workgroupBarrier();
    if (lane < 16u) {
      var sum = vec2<u32>(0u);
      for (var bin = lane * 16u; bin < lane * 16u + 16u; bin++) {
        sum = wide_add(sum, bin_sum(bin));
      }
      chunks[lane] = sum;
    }
    workgroupBarrier();
    if (lane == 0u && !done) {
      choose_bin(digit, by_weight);
    }
    workgroupBarrier();
  }
  if (lane == 0u && is_kept(found)) {  // else top-k has cut within the last bin
    bound = found;
  }
  workgroupBarrier();
}

// ---- weights and the draw ----
// What an invocation has of the weights of all tokens, or of those that top-k keeps.
fn weights_of(at: Place, lane: u32, largest: u32) -> vec2<u32> {
  var sum = vec2<u32>(0u);
  if ({{ of }}.top_k == 0u) {
    if (lane < params.groups) {
      sum = totals[at.slot * params.groups + lane];
    }
    return sum;
  }
  for (var i = lane; i < candidates[at.list]; i += wg_size) {
    let id = candidates[at.list + 1u + i];
    let bits = logits[at.start + id];
    if (is_kept(vec2<u32>(rank_of(bits), ~id))) {
      sum = wide_add(sum, vec2<u32>(weight_of(bits, largest, {{ of }}.inverse_temperature), 0u));
    }
  }
  return sum;
}

// (rank of the score, id) of the best of an invocation's candidates.
fn best_of(at: Place, lane: u32, largest: u32) -> vec2<u32> {
  var drawn = vec2<u32>(0u, 0xffffffffu);
  for (var i = lane; i < candidates[at.list]; i += wg_size) {
    let id = candidates[at.list + 1u + i];
    let bits = logits[at.start + id];
    if (is_near(bits, largest, {{ of }}.margin) && is_kept(vec2<u32>(rank_of(bits), ~id))) {
      let random = philox(vec4<u32>(id / 4u, {{ "draws[at.row].position" if rows else "u32(position)" }}, 0u, 0u), {{ of }}.seed);
      let score = rank_of(bitcast<u32>(bitcast<f32>(bits) + {{ of }}.temperature * gumbel(random[id % 4u])));
      if (score > drawn.x || (score == drawn.x && id < drawn.y)) {
        drawn = vec2<u32>(score, id);
      }
    }
  }
  return drawn;
}

@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let slot = group.y;
  {% if rows %}
  let row = params.first + slot;
  if ((draws[row].kinds & IS_FILTERED) == 0u) {
    return;
  }
  let place = row;
  let at = Place(row, row * params.vocab, slot * (1u + params.vocab), slot);
  {% else %}
  const place = 0u;
  let at = Place(0u, u32(row) * params.vocab, 0u, 0u);
  {% endif %}
  if (lane == 0u) {
    atomicStore(&top, 0u);
    atomicStore(&best, 0u);
    atomicStore(&lowest, 0xffffffffu);
    atomicStore(&total[0], 0u);
    atomicStore(&total[1], 0u);
    bound = vec2<u32>(0u);
  }
  workgroupBarrier();
  if (lane < params.maxima) {
    atomicMax(&top, maxima[at.slot * params.maxima + lane]);
  }
  workgroupBarrier();
  let largest = atomicLoad(&top);
  if ({{ of }}.top_k > 0u) {
    select_cut(at, lane, vec2<u32>({{ of }}.top_k, 0u), false, largest);
  }
  if ({{ of }}.share > 0u) {
    let sum = weights_of(at, lane, largest);
    if (atomicAdd(&total[0], sum.x) > 0xffffffffu - sum.x) {
      atomicAdd(&total[1], 1u);
    }
    atomicAdd(&total[1], sum.y);
    workgroupBarrier();
    // ceil(total * share / 2^32)
    let fraction = wide_multiply(atomicLoad(&total[0]), {{ of }}.share);
    let whole = wide_multiply(atomicLoad(&total[1]), {{ of }}.share);
    let goal = wide_add(wide_add(whole, vec2<u32>(fraction.y, 0u)), vec2<u32>(select(0u, 1u, fraction.x > 0u), 0u));
    select_cut(at, lane, goal, true, largest);
  }
  let drawn = best_of(at, lane, largest);
  atomicMax(&best, drawn.x);
  workgroupBarrier();
  if (drawn.x == atomicLoad(&best)) {
    atomicMin(&lowest, drawn.y);
  }
  workgroupBarrier();
  if (lane == 0u) {
    let broken = largest >= RANK_OF_INFINITY || largest <= RANK_OF_NEGATIVE_INFINITY;
    out[place] = select(i32(atomicLoad(&lowest)), -1, broken);
  }
}
