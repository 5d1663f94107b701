{#
Decoder layers for one token in one dispatch: norm and projections, attention, output projection, norm and gated layer,
projection back, of all layers one after the other.

All workgroups run at once (plan.py makes sure), and meet between phases. What they hand over to each other lies in
`work`, which only atomics touch: no other access is seen by other workgroups within a dispatch. A workgroup waits only for so
long; if the others do not come, the result is NaN, and a flag says so.

A product: a team of lanes has quads of columns (packed.py), its lanes share K. x is in workgroup memory.

Attention: a workgroup has a chunk of a KV head's context. LANES lanes hold a row of the cache; the groups of lanes take turns
with rows, each with an online softmax of its own. The last chunk of a head that is done puts all of them together.

Inputs:
  size = 256 | 512: invocations of a workgroup
  subgroup = 32 | 8: of a subgroup; all have one size
  hidden = 2048: elements of the residual stream
  heads = 32: of queries
  kv_heads = 8: of keys and values
  head_dim = 64: elements of a head
  ffn = 8192: of the gated layer
  lanes = [64, 64, 32, 64]: of a team, in each of the four products; a multiple of `subgroup`
  unroll = [4, 4, 2, 4]: units of each quad that a lane loads before it uses them, in each product
  chunk = 8192: elements of x in workgroup memory at a time, a multiple of what a unit has
  bits = 4 | 8: of a weight's code
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min": see scales.wgsl
  group = 32 | 0: weights that share a scale; 0: whole rows
  cache = "float16" | "float32": what the KV caches hold
  width = 4 | 8: elements of a load of a cache; head_dim / width is a power of two and at most `subgroup`
  keys = 4 | 2: rows of the cache that a group of lanes loads before it uses the first
  rotation = "pairs" | "halves": which elements of a head rotate together
  half = 32: pairs that rotate in a head
  pinned = True | False: weights are declared as writable, so that their loads stay where they are written
  looks = 1 | 16: at the others in a turn of the loop that waits for them: Mesa's CPU driver ends loops after 65,535 turns
  ahead = True | False: the first weights of a phase are loaded before the workgroups meet
#}
{% set per_unit = 8 if bits == 4 else 4 %}
{% set halves = per_unit // 4 %}
{% set mins = scales == "float16_and_min" %}
{% set q_width, kv_width = heads * head_dim, kv_heads * head_dim %}
{% set rows = heads // kv_heads %}
{% set row_lanes = head_dim // width %}
{% set vectors = width // 4 %}
{% set subgroups = size // subgroup %}
{% set roles = [
  {"name": "qkv", "k": hidden, "quads": (q_width + 2 * kv_width) // 4, "each": 1, "norm": True},
  {"name": "output", "k": q_width, "quads": hidden // 4, "each": 1, "norm": False},
  {"name": "gated", "k": hidden, "quads": ffn // 2, "each": 2, "norm": True},
  {"name": "down", "k": ffn, "quads": hidden // 4, "each": 1, "norm": False},
] %}
{% set most = namespace(loads=0) %}
{% for role in roles %}{% set most.loads = [most.loads, role.each * unroll[loop.index0]] | max %}{% endfor %}
{% set exchanges = [1, 2, 4, 8, 16, 32, 64] %}
{% include "matmul/codes.wgsl" %}
{% include "matmul/scales.wgsl" %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/maximum.wgsl" %}

@group(0) @binding(0) var<storage, read> x: array<f32>;  // [hidden]
@group(0) @binding(1) var<storage, {{ "read_write" if pinned else "read" }}> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<FourScales>;
@group(0) @binding(3) var<storage, read> norms: array<f32>;
@group(0) @binding(4) var<storage, read_write> k_caches: array<CacheLoad>;  // of all layers
@group(0) @binding(5) var<storage, read_write> v_caches: array<CacheLoad>;
@group(0) @binding(6) var<storage, read> cos_table: array<f32>;  // [rows, half], or [rows, 2 * half] with halves
@group(0) @binding(7) var<storage, read> sin_table: array<f32>;
@group(0) @binding(8) var<storage, read_write> out: array<f32>;  // [hidden]
@group(0) @binding(9) var<storage, read_write> work: array<atomic<u32>>;

struct Params {
  layers: u32,
  patience: u32,       // looks at the others before a workgroup gives up
  least_chunk: u32,    // rows of the cache that are worth a workgroup
  scale: f32,          // of the scores
  weights_at: vec4<u32>,  // where the matrices of each product begin in a layer's weights
  scales_at: vec4<u32>,
  weights_of_layer: u32,  // from a layer to the next
  scales_of_layer: u32,
  norms_of_layer: u32,
  second_norm: u32,       // from a layer's first norm to its second
  caches_of_layer: u32,
  eps: f32,
  second_eps: f32,
}
@group(0) @binding(10) var<uniform> params: Params;
@group(0) @binding(11) var<uniform> input_pos: i32;
@group(0) @binding(12) var<uniform> start_pos: i32;

const SIZE = {{ size }}u;
const SUBGROUP = {{ subgroup }}u;
const SUBGROUPS = {{ subgroups }}u;
const HIDDEN = {{ hidden }}u;
const Q_WIDTH = {{ q_width }}u;
const KV_WIDTH = {{ kv_width }}u;
const KV_HEADS = {{ kv_heads }}u;
const HEAD_DIM = {{ head_dim }}u;
const UNITS = {{ row_lanes }}u;  // loads in a row of a head
const ROWS = {{ rows }}u;        // query heads of a KV head
const LANES = UNITS;
const GROUPS = SIZE / LANES;     // of lanes that take turns with rows
const KEYS = {{ keys }}u;
const RESCALE = 6.0;  // probabilities stay below e^6: sums are scaled only when a maximum has grown by more

// ---- words of `work` ----
const ARRIVALS = 0u;
const DEPARTURES = 1u;
const FAILED = 2u;
const DONE_CHUNKS = 16u;  // of each KV head
const STREAM = DONE_CHUNKS + (KV_HEADS + 15u) / 16u * 16u;  // the residual stream between layers
const MIDDLE = STREAM + HIDDEN;                             // and within a layer
const QKV = MIDDLE + HIDDEN;
const ATTENDED = QKV + Q_WIDTH + 2u * KV_WIDTH;
const GATED = ATTENDED + Q_WIDTH;
const STATS = GATED + {{ ffn }}u;  // [KV head, chunk, row]: maximum, total
// After them the chunks' sums, [KV head, chunk, row, D].

// x of a product, in units; or a head's rotated queries, new key and new value, and then what its subgroups have summed up.
var<workgroup> shared_x: array<vec4<f32>, {{ [chunk // 4, (rows + 2) * head_dim // 4 + subgroups * rows * head_dim // 4] | max }}>;
var<workgroup> squares: array<f32, SUBGROUPS>;
var<workgroup> partials: array<vec4<f32>, SUBGROUPS * 2u>;
var<workgroup> part_stats: array<vec2<f32>, SUBGROUPS * ROWS>;
var<workgroup> answer: u32;

struct Batch {  // of weights, on their way
  {% for i in range(most.loads) %}
  w{{ i }}: vec4<u32>,
  s{{ i }}: FourScales,
  {% endfor %}
}

fn taken(at: u32) -> f32 {
  return bitcast<f32>(atomicLoad(&work[at]));
}

fn hand_over(at: u32, value: f32) {
  atomicStore(&work[at], bitcast<u32>(value));
}

{% include "decoder_layers/persistent/products.wgsl" %}
{% include "decoder_layers/persistent/attention.wgsl" %}
{% include "decoder_layers/persistent/meeting.wgsl" %}

@compute @workgroup_size(SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let group = workgroup.x;
  let groups = workgroups.x;
  var goal = 0u;
  var batch: Batch;
  {% macro load_first() %}
  switch (phase) {
    {% for phase in [0, 2, 3, 4] %}
    case {{ phase }}u: {
      batch = load_{{ roles[loop.index0].name }}(layer, group, index, index % {{ lanes[loop.index0] }}u);
    }
    {% endfor %}
    default: {}
  }
  {% endmacro %}
  for (var step = 0u; step < max(5u * params.layers, 1u); step++) {
    let layer = step / 5u;
    let phase = step % 5u;
    arrive(index);
    goal += groups;
    {% if ahead %}
    {{ load_first() | indent(2) }}
    {% endif %}
    if (!meet(goal, index)) {
      leave(groups, index, true);
      return;
    }
    if (params.layers == 0u) {
      break;
    }
    {% if not ahead %}
    {{ load_first() | indent(2) }}
    {% endif %}
    switch (phase) {
      case 0u: {
        qkv(layer, group, groups, index, lane, batch);
      }
      case 1u: {
        attend(layer, group, groups, index, lane);
      }
      case 2u: {
        output(layer, group, groups, index, lane, batch);
      }
      case 3u: {
        gated(layer, group, groups, index, lane, batch);
      }
      default: {
        down(layer, group, groups, index, lane, batch);
      }
    }
  }
  leave(groups, index, false);
}
