{#
The log probability of each row's drawn token, and the likeliest tokens of the row with theirs. One workgroup a row.

They are of the logits before any change. The drawn token's is NaN where those are not finite numbers, or where none could
be drawn. Rows that ask for fewer tokens, and rows that have no more, get -1 and 0 in the rest.
#}
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab], after changes
@group(0) @binding(1) var<storage, read> draws: array<Draw>;  // [rows]
@group(0) @binding(2) var<storage, read> changed: array<vec2<u32>>;  // [changes]: token, and its logit before
@group(0) @binding(3) var<storage, read> found: array<vec2<u32>>;  // [rows, chunks, 1 + MOST]: see likeliest_tokens.wgsl
@group(0) @binding(4) var<storage, read> out: array<i32>;  // [rows]: the drawn token, or -1
@group(0) @binding(5) var<storage, read_write> logprobs: array<u32>;  // bits of f32 [rows, 1 + MOST]
@group(0) @binding(6) var<storage, read_write> likeliest: array<i32>;  // [rows, MOST]
@group(0) @binding(7) var<uniform> params: Params;

struct Params {
  vocab: u32,
  first: u32,  // row
  chunks: u32,
  changes: u32,  // of all rows
}

const NOT_A_NUMBER = 0x7fc00000u;
const NEGATIVE_INFINITY = 0xff800000u;

var<workgroup> before: u32;  // bits of the drawn token's logit before any change

{% include "sampling/draw.wgsl" %}
{% include "sampling/ordered.wgsl" %}
{% include "wgsl/workgroup_reduce.wgsl" %}

fn logprob_of(bits: u32, largest: u32, log_sum: f32) -> u32 {
  if (!is_finite(largest)) {
    return NOT_A_NUMBER;
  }
  if (!is_finite(bits)) {
    return NEGATIVE_INFINITY;
  }
  return bitcast<u32>(bitcast<f32>(bits) - bitcast<f32>(largest) - log_sum);
}

@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let place = params.first + group.y;
  let draw = draws[place];
  let count = min(max(draw.likeliest, 1u) - 1u, MOST);
  if (lane >= count && lane < MOST) {
    logprobs[place * (1u + MOST) + 1u + lane] = 0u;
    likeliest[place * MOST + lane] = -1;
  }
  if (draw.likeliest == 0u) {
    if (lane == 0u) {
      logprobs[place * (1u + MOST)] = 0u;
    }
    return;
  }
  let token = out[place];
  let records = group.y * params.chunks;
  if (lane == 0u) {
    atomicStore(&top, 0u);
    before = logits[place * params.vocab + u32(max(token, 0))];
  }
  workgroupBarrier();
  for (var chunk = lane; chunk < params.chunks; chunk += wg_size) {
    atomicMax(&top, found[(records + chunk) * (1u + MOST)].x);
  }
  for (var i = draw.changes.x + lane; i < min(draw.changes.y, params.changes); i += wg_size) {
    if (changed[i].x == u32(token)) {
      before = changed[i].y;
    }
  }
  workgroupBarrier();
  let largest = bits_of(atomicLoad(&top));
  var sum = 0.0;
  for (var chunk = lane; chunk < params.chunks; chunk += wg_size) {
    let part = found[(records + chunk) * (1u + MOST)];
    if (is_finite(bits_of(part.x)) && is_finite(largest)) {
      sum += bitcast<f32>(part.y) * exp(bitcast<f32>(bits_of(part.x)) - bitcast<f32>(largest));
    }
  }
  let log_sum = log(workgroup_sum(sum, lane));
  if (lane == 0u) {
    logprobs[place * (1u + MOST)] = select(logprob_of(before, largest, log_sum), NOT_A_NUMBER, token < 0);
  }
  var last = BEFORE_ALL;
  for (var i = 0u; i < count; i++) {
    var best = AFTER_ALL;
    for (var j = lane; j < params.chunks * count; j += wg_size) {
      let other = found[(records + j / count) * (1u + MOST) + 1u + j % count];
      if (comes_before(last, other) && comes_before(other, best)) {
        best = other;
      }
    }
    last = first_of_all(best, lane);
    if (lane == 0u) {
      let there = last.x > 0u && is_finite(largest);
      let logprob = logprob_of(bits_of(last.x), largest, log_sum);
      logprobs[place * (1u + MOST) + 1u + i] = select(0u, logprob, there);
      likeliest[place * MOST + i] = select(-1, i32(last.y), there);
    }
  }
}
