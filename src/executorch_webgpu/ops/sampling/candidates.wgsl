{#
The tokens that a filter can keep, the candidates, and a few more, in any order; and the weights of all tokens together.

Inputs:
  filter = "top_k" | "top_p" | "min_p" | "each": by top-k, those no smaller than a bound on the k-th largest; by top-p, all
    but those that weigh less than (1 - top_p) / vocab of the heaviest one, which hold no more than 1 - top_p together; by
    min-p, just what it keeps; or rows along y, each by the first of these that its Draw has, if any
#}
{% set rows = filter == "each" %}
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read> maxima: array<u32>;  // [rows, maxima], at most one for each invocation
@group(0) @binding(2) var<storage, read_write> totals: array<vec2<u32>>;  // [rows, workgroups]: weights of all tokens
@group(0) @binding(3) var<storage, read_write> candidates: array<atomic<u32>>;  // [rows, 1 + vocab]: how many, and their ids
@group(0) @binding(4) var<uniform> params: Params;
{% if rows %}
@group(0) @binding(5) var<storage, read> draws: array<Draw>;  // [rows]
{% else %}
@group(0) @binding(5) var<uniform> row: i32;
{% endif %}
{% if filter in ("top_k", "each") %}
@group(0) @binding(6) var<storage, read> bound: array<u32>;  // [rows]: the bound, by rank
{% endif %}

struct Params {
  vocab: u32,
  maxima: u32,
{% if rows %}
  first: u32,  // row
{% else %}
  inverse_temperature: f32,
{% endif %}
{% if filter == "top_p" %}
  least_weight: u32,
{% elif filter == "min_p" %}
  margin: f32,
{% endif %}
}

override wg_size: u32 = 256;

var<workgroup> top: atomic<u32>;
var<workgroup> total: array<atomic<u32>, 2>;

{% include "sampling/draw.wgsl" %}
{% include "sampling/u64.wgsl" %}
{% include "sampling/probability.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(global_invocation_id) gid: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  {% if rows %}
  let place = params.first + group.y;
  let draw = draws[place];
  if (!is_filtered(draw)) {
    return;
  }
  let inverse_temperature = draw.inverse_temperature;
  {% else %}
  let place = u32(row);
  let inverse_temperature = params.inverse_temperature;
  {% endif %}
  if (lane == 0u) {
    atomicStore(&top, 0u);
    atomicStore(&total[0], 0u);
    atomicStore(&total[1], 0u);
  }
  workgroupBarrier();
  if (lane < params.maxima) {
    atomicMax(&top, maxima[group.y * params.maxima + lane]);
  }
  workgroupBarrier();
  let largest = atomicLoad(&top);
  let start = place * params.vocab;
  let list = group.y * (1u + params.vocab);
  var sum = vec2<u32>(0u);
  for (var id = gid.x; id < params.vocab; id += groups.x * wg_size) {
    let bits = logits[start + id];
    let weight = weight_of(bits, largest, inverse_temperature);
    sum = wide_add(sum, vec2<u32>(weight, 0u));
{% if filter == "top_k" %}
    let fits = rank_of(bits) >= bound[0];
{% elif filter == "top_p" %}
    let fits = weight >= params.least_weight;
{% elif filter == "min_p" %}
    let fits = is_near(bits, largest, params.margin);
{% else %}
    var fits = is_near(bits, largest, draw.margin);
    if (draw.top_k > 0u) {
      fits = rank_of(bits) >= bound[group.y];
    } else if (draw.share > 0u) {
      fits = weight >= draw.least_weight;
    }
{% endif %}
    if (fits) {
      let next = atomicAdd(&candidates[list], 1u);
      atomicStore(&candidates[list + 1u + next], id);
    }
  }
  if (atomicAdd(&total[0], sum.x) > 0xffffffffu - sum.x) {
    atomicAdd(&total[1], 1u);
  }
  atomicAdd(&total[1], sum.y);
  workgroupBarrier();
  if (lane == 0u) {
    totals[group.y * groups.x + group.x] = vec2<u32>(atomicLoad(&total[0]), atomicLoad(&total[1]));
  }
}
