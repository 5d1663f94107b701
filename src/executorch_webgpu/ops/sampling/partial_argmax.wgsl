{#
The best token of each workgroup's share of the vocabulary, or a draw by Gumbel noise: (rank of its score, id).

Of equal scores, the lowest id.

Inputs:
  noise = True | False: a token's score is its logit and temperature * noise, which draws by the softmax; or the logit
  rows = False | True: one row, drawn as the parameters say; or rows along y, each as its Draw says, which may be filtered
#}
@group(0) @binding(0) var<storage, read> logits: array<u32>;  // bits of f32 [rows, vocab]
@group(0) @binding(1) var<storage, read_write> bests: array<vec2<u32>>;  // [rows, workgroups]
@group(0) @binding(2) var<uniform> params: Params;
{% if rows %}
@group(0) @binding(3) var<storage, read> draws: array<Draw>;  // [rows]
{% else %}
@group(0) @binding(3) var<uniform> row: i32;
{% if noise %}
@group(0) @binding(4) var<uniform> position: i32;
{% endif %}
{% endif %}

struct Params {
  vocab: u32,
{% if rows %}
  first: u32,  // row
{% elif noise %}
  temperature: f32,
  seed: vec2<u32>,
{% endif %}
}

override wg_size: u32 = 64;

var<workgroup> top: atomic<u32>;
var<workgroup> lowest: atomic<u32>;

{% include "sampling/draw.wgsl" %}
{% include "wgsl/float_order.wgsl" %}
{% if noise %}
{% include "sampling/gumbel.wgsl" %}
{% endif %}

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
  if (is_filtered(draw)) {
    return;
  }
  {% else %}
  let place = u32(row);
  {% endif %}
  {% if noise %}
  {% if rows %}
  let seed = draw.seed;
  let at = draw.position;
  let temperature = draw.temperature;
  {% else %}
  let seed = params.seed;
  let at = u32(position);
  let temperature = params.temperature;
  {% endif %}
  {% endif %}
  if (lane == 0u) {
    atomicStore(&top, 0u);
    atomicStore(&lowest, 0xffffffffu);
  }
  let start = place * params.vocab;
  var best = vec2<u32>(0u, 0xffffffffu);
  // Four tokens share one call of the generator.
  for (var block = gid.x; block < (params.vocab + 3u) / 4u; block += groups.x * wg_size) {
    {% if noise %}
    var random = vec4<u32>(0u);
    if (temperature > 0.0) {
      random = philox(vec4<u32>(block, at, 0u, 0u), seed);
    }
    {% endif %}
    for (var i = 0u; i < 4u; i++) {
      let id = 4u * block + i;
      if (id >= params.vocab) {
        break;
      }
      let bits = logits[start + id];
      var rank = rank_of(bits);
      {% if noise %}
      // What is not finite keeps its rank: NaN and infinity are found by it.
      if (temperature > 0.0 && is_finite(bits)) {
        rank = rank_of(bitcast<u32>(bitcast<f32>(bits) + temperature * gumbel(random[i])));
      }
      {% endif %}
      if (rank > best.x) {
        best = vec2<u32>(rank, id);
      }
    }
  }
  workgroupBarrier();
  atomicMax(&top, best.x);
  workgroupBarrier();
  if (best.x == atomicLoad(&top)) {
    atomicMin(&lowest, best.y);
  }
  workgroupBarrier();
  if (lane == 0u) {
    bests[group.y * groups.x + group.x] = vec2<u32>(atomicLoad(&top), atomicLoad(&lowest));
  }
}
