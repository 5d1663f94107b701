{#
Decoder layers for one token in one dispatch: norm and projections, attention, output projection, norm and gated layer,
projection back, of all layers one after the other.

All workgroups run at once (plan.py makes sure). What they hand over to each other lies in `work`, which only atomics touch: no
other access is seen by other workgroups within a dispatch. Nothing orders two words of it, so each says for itself whether it
is there (exchange.wgsl), and a workgroup waits for the words that it needs, for so long. If they do not come, the result is
NaN, and a flag says so. A barrier goes before each wait: other subgroups may not run while one waits, so they must have handed
over what they have.

A word is written once a layer, and read for a layer by workgroups whose results all later words depend on. So none is
overwritten before all have read it.

A product: a team of lanes has pairs of quads of columns (packed.py), its lanes share K. x is in workgroup memory. With codes of
4 bits, x is whole numbers there (bytes.wgsl).

Attention: a workgroup has a chunk of a KV head's context. LANES lanes hold a row of the cache; the groups of lanes take turns
with rows, each subgroup with an online softmax of its own. Each workgroup puts a share of all chunks of its head together.

Inputs:
  size = 256 | 512: invocations of a workgroup
  subgroup = 32 | 8: of a subgroup; all have one size
  hidden = 2048: elements of the residual stream
  heads = 32: of queries
  kv_heads = 8: of keys and values
  head_dim = 64: elements of a head
  ffn = 8192: of the gated layer
  lanes = [64, 128, 32, 128]: of a team, in each of the four products; a multiple of `subgroup`
  unroll = 2 | 4: units of each quad that a lane loads at a time
  chunk = 8192: elements of x in workgroup memory at a time, a multiple of what a unit has
  bits = 4 | 8: of a weight's code
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  x_bytes = 3 | 2: of the whole numbers that x becomes where codes have 4 bits
  scales = "float32" | "float16" | "float16_and_min": see scales.wgsl
  group = 32 | 0: weights that share a scale; 0: whole rows
  of_set = 8 | 1: at least the groups of the units of a subgroup that lie side by side, a power of two
  cache = "float16" | "float32": what the KV caches hold
  width = 4 | 8: elements of a load of a cache; head_dim / width is a power of two and at most `subgroup`
  keys = 4 | 2: rows of the cache that a group of lanes loads before it uses the first
  merged = 8 | 4: chunks of a head whose results an invocation loads at a time
  rotation = "pairs" | "halves": which elements of a head rotate together
  half = 32: pairs that rotate in a head
  early = True | False: the weights after attention are asked for before it, and hold registers meanwhile
  throttle = True | False: workgroups meet between phases, so that none asks for words long before they are there
  looks = 1 | 16: at the others in a turn of the loop that waits for them: Mesa's CPU driver ends loops after 65,535 turns
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
  {"name": "qkv", "batch": "WeightsOfQkv", "k": hidden, "slots": (q_width + 2 * kv_width) // 8},
  {"name": "output", "batch": "WeightsOfOutput", "k": q_width, "slots": hidden // 8},
  {"name": "gated", "batch": "WeightsOfGated", "k": hidden, "slots": ffn // 4},
  {"name": "down", "batch": "WeightsOfDown", "k": ffn, "slots": hidden // 8},
] %}
{% set exchanges = [1, 2, 4, 8, 16, 32, 64] %}
{# Loads `count` words until all of them are there: `name`0 and so on from `at`0 and so on. Sets `missing`, compares with `tag`. #}
{% macro await(name, at, count) %}
loop {
  {% for i in range(count) %}
  {{ name }}{{ i }} = word_at({{ at }}{{ i }});
  {% endfor %}
  missing = (0u{% for i in range(count) %} | ({{ name }}{{ i }} ^ tag){% endfor %}) & 1u;
  if (missing == 0u || patience == 0u) {
    break;
  }
  patience--;
}
if (missing != 0u) {  // also where a driver ends a loop that takes long
  give_up();
}
{% endmacro %}
{% include "matmul/codes.wgsl" %}
{% include "matmul/scales.wgsl" %}
{% if bits == 4 %}
{% include "matmul/bytes.wgsl" %}
{% endif %}
{% include "matmul/own_sum.wgsl" %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/maximum.wgsl" %}

@group(0) @binding(0) var<storage, read> x: array<f32>;  // [hidden]
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<FourScales>;
@group(0) @binding(3) var<storage, read> norms: array<f32>;
@group(0) @binding(4) var<storage, read_write> k_caches: array<CacheLoad>;  // of all layers
@group(0) @binding(5) var<storage, read_write> v_caches: array<CacheLoad>;
@group(0) @binding(6) var<storage, read> cos_table: array<f32>;  // [rows, half], or [rows, 2 * half] with halves
@group(0) @binding(7) var<storage, read> sin_table: array<f32>;
@group(0) @binding(8) var<storage, read_write> out: array<f32>;  // [hidden]
@group(0) @binding(9) var<storage, read_write> work: array<atomic<u32>>;

struct Params {
  layers: u32,            // 0: try only whether all workgroups run at once
  patience: u32,          // looks at words that are not there, before an invocation gives up
  least_chunk: u32,       // rows of the cache that are worth a workgroup
  scale: f32,             // of the scores
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
const RESCALE = 6.0;  // probabilities stay below e^6: sums are scaled only when a maximum has grown by more

// ---- words of `work` ----
const ARRIVALS = 0u;
const DEPARTURES = 1u;
const FAILED = 2u;
const EPOCH = 3u;  // layers since the beginning
const STREAM = 16u;              // the residual stream between layers
const MIDDLE = STREAM + HIDDEN;  // and within a layer
const QKV = MIDDLE + HIDDEN;
const ATTENDED = QKV + Q_WIDTH + 2u * KV_WIDTH;
const GATED = ATTENDED + Q_WIDTH;
const STATS = GATED + {{ ffn }}u;  // [KV head, chunk, row]: maximum, total
// After them the chunks' sums, [KV head, chunk, row, D].

// Bits of floats, or whole numbers: x of a product, in units; or a head's rotated queries, new key and new value, and then what
// its subgroups have summed up.
var<workgroup> shared_x: array<vec4<u32>, {{ [chunk // 4, (rows + 2) * head_dim // 4 + subgroups * rows * head_dim // 4] | max }}>;
var<workgroup> squares: array<f32, SUBGROUPS>;
var<workgroup> partials: array<f32, SUBGROUPS * 8u>;
var<workgroup> part_stats: array<vec2<f32>, SUBGROUPS * ROWS>;

{% include "decoder_layers/persistent/exchange.wgsl" %}
{% include "decoder_layers/persistent/products.wgsl" %}
{% include "decoder_layers/persistent/attention.wgsl" %}

{% macro all_meet() %}
{% if throttle %}
arrive(index);
meet(goal, index);
goal += groups;
{% endif %}
{% endmacro %}
@compute @workgroup_size(SIZE)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let group = workgroup.x;
  let groups = workgroups.x;
  patience = params.patience;
  let epoch = atomicLoad(&work[EPOCH]) + 1u;
  var goal = groups;
  if (params.layers == 0u) {
    arrive(index);
    meet(goal, index);
  } else {
    var of_qkv = load_qkv(0u, group, 0u, index, lane);
    for (var i = group * SIZE + index; i < HIDDEN; i += groups * SIZE) {
      hand_over(STREAM + i, x[i], epoch);
    }
    for (var layer = 0u; layer < params.layers; layer++) {
      let tag = epoch + layer;
      {{ all_meet() | indent(6) -}}
      qkv(layer, tag, group, groups, index, lane, of_qkv);
      {% if early %}
      let of_output = load_output(layer, group, 0u, index, lane);
      {% endif %}
      {{ all_meet() | indent(6) -}}
      attend(layer, tag, group, groups, index, lane);
      {% if not early %}
      let of_output = load_output(layer, group, 0u, index, lane);
      {% endif %}
      {{ all_meet() | indent(6) -}}
      output(layer, tag, group, groups, index, lane, of_output);
      let of_gated = load_gated(layer, group, 0u, index, lane);
      {{ all_meet() | indent(6) -}}
      gated(layer, tag, group, groups, index, lane, of_gated);
      let of_down = load_down(layer, group, 0u, index, lane);
      {{ all_meet() | indent(6) -}}
      down(layer, tag, group, groups, index, lane, of_down);
      if (layer + 1u < params.layers) {
        of_qkv = load_qkv(layer + 1u, group, 0u, index, lane);
      }
    }
  }
  leave(groups, index);
}
