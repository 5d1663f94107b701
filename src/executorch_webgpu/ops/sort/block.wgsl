{#
Sorts blocks of pairs, of a rank and an index, in workgroup memory; or ends the merge of such blocks.

A pair orders by its rank and then by its index, so that sorting is stable. Compared pairs go up: a bitonic network whose
levels begin with a mirrored step, so that what lies past the end of a row, above all pairs, need not be there.

Inputs:
  source = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8" | "pairs" | "in_place": dtype of x; or x has pairs; or they
    are those of the result
#}
{% set tensor = source not in ("pairs", "in_place") %}
{% if tensor %}
@group(0) @binding(0) var<storage, read> x: array<{{ source }}_word>;  // [outer, length, inner]
{% elif source == "pairs" %}
@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;  // [rows, length]
{% endif %}
@group(0) @binding(1) var<storage, read_write> pairs: array<vec2<u32>>;  // [rows, chunks, keep]

struct Params {
  rows: u32,
  length: u32,  // of a row of x, or of the result if that is sorted in place
  inner: u32,
  chunks: u32,  // of a row
  chunk: u32,  // a power of two, at most TILE
  first_level: u32,  // levels of the network that are gone through
  last_level: u32,
  tail: u32,  // the stride of the first step after them, or 0
  keep: u32,  // pairs of a chunk that are stored
  flip: u32,  // all ones to begin with the largest, or 0
}
@group(0) @binding(2) var<uniform> params: Params;

override wg_size: u32 = 256;

const TILE = 2048u;
const PAST = vec2<u32>(0xffffffffu);

var<workgroup> ranks: array<u32, 2048>;
var<workgroup> places: array<u32, 2048>;

{% if tensor %}
{% set kind = "max" %}
{% set compute = "f32" if "float" in source else "i32" %}
{% include "reduce/partial.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% endif %}

struct Place {
  row: u32,
  chunk: u32,
  within: u32,
}

fn place_of(element: u32, group: u32) -> Place {
  let chunk = group * (TILE / params.chunk) + element / params.chunk;
  return Place(chunk / params.chunks, chunk % params.chunks, element % params.chunk);
}

fn loaded(place: Place) -> vec2<u32> {
  let i = place.chunk * params.chunk + place.within;
  if (place.row >= params.rows || i >= params.length) {
    return PAST;
  }
  {% if tensor %}
  let row = place.row / params.inner * params.length * params.inner + place.row % params.inner;
  let at = row + i * params.inner;
  let v = Number(element_{{ source }}(x[at / {{ source }}_per_word], at));
  return vec2<u32>(rank_of_number(v) ^ params.flip, i);
  {% elif source == "pairs" %}
  return x[place.row * params.length + i];
  {% else %}
  return pairs[place.row * params.length + i];
  {% endif %}
}

fn exchange(a: u32, b: u32) {
  let rank_a = ranks[a];
  let rank_b = ranks[b];
  let place_a = places[a];
  let place_b = places[b];
  if (rank_b < rank_a || (rank_b == rank_a && place_b < place_a)) {
    ranks[a] = rank_b;
    ranks[b] = rank_a;
    places[a] = place_b;
    places[b] = place_a;
  }
}

// Pairs `stride` apart.
fn step(local: u32, stride: u32) {
  for (var i = local; i < TILE / 2u; i += wg_size) {
    let a = i / stride * stride * 2u + i % stride;
    exchange(a, a + stride);
  }
}

fn mirrored_step(local: u32, level: u32) {
  let half = level / 2u;
  for (var i = local; i < TILE / 2u; i += wg_size) {
    let first = i / half * level;
    exchange(first + i % half, first + level - 1u - i % half);
  }
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let block = group.x + group.y * groups.x;
  for (var i = local; i < TILE; i += wg_size) {
    let pair = loaded(place_of(i, block));
    ranks[i] = pair.x;
    places[i] = pair.y;
  }
  workgroupBarrier();
  for (var level = params.first_level; level <= params.last_level; level *= 2u) {
    mirrored_step(local, level);
    workgroupBarrier();
    for (var stride = level / 4u; stride > 0u; stride /= 2u) {
      step(local, stride);
      workgroupBarrier();
    }
  }
  for (var stride = params.tail; stride > 0u; stride /= 2u) {
    step(local, stride);
    workgroupBarrier();
  }
  for (var i = local; i < TILE; i += wg_size) {
    let place = place_of(i, block);
    if (place.row < params.rows && place.within < params.keep) {
      pairs[(place.row * params.chunks + place.chunk) * params.keep + place.within] = vec2<u32>(ranks[i], places[i]);
    }
  }
}
