// Radix selection among candidates, in the order of falling logits and, of equal ones, of rising ids.
//
// A token stands in this order by two words, its rank and ~id, of which larger ones come first. Eight bits of these words
// at a time, from the top, how much lies in each of 256 bins says in which one the cut is. Top-k counts tokens, top-p adds
// up weights.
var<workgroup> low: array<atomic<u32>, 256>;  // 64-bit sums
var<workgroup> high: array<atomic<u32>, 256>;
var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> chunks: array<vec2<u32>, 16>;  // sums of 16 bins each
var<workgroup> bound: vec2<u32>;  // the last token that is kept so far
var<workgroup> found: vec2<u32>;  // the words of the cut as far as they are known; zeros below
var<workgroup> missing: vec2<u32>;  // what is still to be found in the bins of these words
var<workgroup> finished: u32;

fn is_kept(place: vec2<u32>) -> bool {
  return place.x > bound.x || (place.x == bound.x && place.y >= bound.y);
}

fn bin_sum(bin: u32) -> vec2<u32> {
  return vec2<u32>(atomicLoad(&low[bin]), atomicLoad(&high[bin]));
}

// Sort the candidates that lie in the bins of `found` into finer ones.
fn fill_bins(lane: u32, digit: u32, by_weight: bool, largest: u32) {
  let start = u32(row) * params.vocab;
  let shift = 24u - 8u * (digit % 4u);
  let above = ~((256u << shift) - 1u);  // bits of the word that the bins before have in common
  for (var i = lane; i < candidates[0]; i += wg_size) {
    let id = candidates[1u + i];
    let bits = logits[start + id];
    let place = vec2<u32>(rank_of(bits), ~id);
    let word = select(place.x, place.y, digit >= 4u);
    let known = select(found.x, found.y, digit >= 4u);
    if (((word ^ known) & above) == 0u && (digit < 4u || place.x == found.x) && (!by_weight || is_kept(place))) {
      let bin = (word >> shift) & 255u;
      let weight = select(1u, weight_of(bits, largest), by_weight);
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
fn select_cut(lane: u32, goal: vec2<u32>, by_weight: bool, largest: u32) {
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
      fill_bins(lane, digit, by_weight, largest);
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
