{#
Attention of a few packed rows over one split of the context, for adapters that are CPUs.

A workgroup is one subgroup. Of as many keys as it has lanes, each lane multiplies one with all queries, whose elements lie
in all lanes and come by broadcasts. Then each lane has vec4s of D, and goes through the values of these keys, whose
probabilities come by broadcasts, too. So K and V are read once, and no sum goes over lanes. attention/merge_splits puts
splits together, if there are several.

Inputs:
  lanes = 8 | 4 | 32: of a subgroup
  rows = 3 | 1 | 8: packed rows of a workgroup (see wgsl/packed_rows)
  vectors = 16 | 9: vec4s in a head
  cache = "float32" | "float16" | "int8": dtype of both caches
#}
{% set width = 4 %}
{% set int8 = cache == "int8" %}
{% set mine = (vectors + lanes - 1) // lanes %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/packed_rows.wgsl" %}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;           // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k_cache: array<CacheLoad>;     // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read> v_cache: array<CacheLoad>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;   // [S, Hq, D]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;  // [Hkv, rows, splits, D], not normalized
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>; // [Hkv, rows, splits]: maximum, total
{% if int8 %}
@group(0) @binding(8) var<storage, read> k_scales: array<f32>;          // [Cmax, Hkv]
@group(0) @binding(9) var<storage, read> v_scales: array<f32>;
{% endif %}

struct Params {
  rows: u32,        // packed rows of a KV head, S * group_size
  row_blocks: u32,  // rows / ROWS, rounded up
  group_size: u32,  // Hq / Hkv
  kv_heads: u32,
  chunk: u32,       // columns of a split
  splits: u32,      // planned ones; those past the context have nothing to do
  scale: f32,       // of the scores
}
@group(0) @binding(6) var<uniform> params: Params;
@group(0) @binding(7) var<uniform> input_pos: i32;

const LANES = {{ lanes }}u;
const ROWS = {{ rows }}u;
const VECTORS = {{ vectors }}u;

fn max_of_lanes(x: f32) -> f32 {
  var most = subgroupBroadcast(x, 0u);
  {% for l in range(1, lanes) %}
  most = max(most, subgroupBroadcast(x, {{ l }}u));
  {% endfor %}
  return most;
}

fn sum_of_lanes(x: f32) -> f32 {
  return {% for l in range(lanes) %}{{ " + " if l }}subgroupBroadcast(x, {{ l }}u){% endfor %};
}

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let kv_head = group.x / params.row_blocks;
  let first_row = group.x % params.row_blocks * ROWS;
  let split = group.y;
  let last_row = min(first_row + ROWS, params.rows) - 1u;
  let begin = split * params.chunk;
  let end = min(begin + params.chunk, u32(input_pos) + last_row / params.group_size + 1u);
  if (begin >= end) {
    return;
  }

  // ---- queries: each lane's vec4s, every LANES-th ----
  {% for i in range(mine) %}
  let vector{{ i }} = min(lane + {{ i * lanes }}u, VECTORS - 1u);
  {% endfor %}
  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + {{ r }}u, last_row);
  let columns{{ r }} = u32(input_pos) + row{{ r }} / params.group_size + 1u;
  let head{{ r }} = query_head(row{{ r }}, kv_head, params.kv_heads, params.group_size) * VECTORS;
  var largest{{ r }} = LOWEST;
  var total{{ r }} = 0.0;  // of the lane's own keys
  {% for i in range(mine) %}
  let q{{ r }}_{{ i }} = q[head{{ r }} + vector{{ i }}] * params.scale;
  var sum{{ r }}_{{ i }} = vec4<f32>();
  {% endfor %}
  {% endfor %}

  for (var first_key = begin; first_key < end; first_key += LANES) {
    // ---- scores: a key a lane; keys past the end repeat the last one ----
    let key = first_key + lane;
    let place = min(key, end - 1u) * params.kv_heads + kv_head;
    {% for r in range(rows) %}
    var products{{ r }} = vec4<f32>();
    {% endfor %}
    {% for v in range(vectors) %}
    {
      let k = loaded(k_cache[place * VECTORS + {{ v }}u]);
      {% for r in range(rows) %}
      products{{ r }} += k * subgroupBroadcast(q{{ r }}_{{ v // lanes }}, {{ v % lanes }}u);
      {% endfor %}
    }
    {% endfor %}
    {% if int8 %}
    let k_scale = k_scales[place];
    let v_scale = v_scales[place];
    {% endif %}

    // ---- softmax ----
    {% for r in range(rows) %}
    let score{{ r }} = dot(products{{ r }}, vec4<f32>(1.0)){{ " * k_scale" if int8 }};
    let most{{ r }} = max(largest{{ r }}, max_of_lanes(select(LOWEST, score{{ r }}, key < min(columns{{ r }}, end))));
    let before{{ r }} = exp(largest{{ r }} - most{{ r }});
    let weight{{ r }} = select(0.0, exp(score{{ r }} - most{{ r }}), key < min(columns{{ r }}, end));
    total{{ r }} = before{{ r }} * total{{ r }} + weight{{ r }};
    largest{{ r }} = most{{ r }};
    {% for i in range(mine) %}
    sum{{ r }}_{{ i }} *= before{{ r }};
    {% endfor %}
    {% if int8 %}
    let scaled{{ r }} = weight{{ r }} * v_scale;
    {% endif %}
    {% endfor %}

    // ---- values: vec4s of D a lane ----
    {% for j in range(lanes) %}
    {
      let value_place = (min(first_key + {{ j }}u, end - 1u) * params.kv_heads + kv_head) * VECTORS;
      {% for i in range(mine) %}
      let v{{ i }} = loaded(v_cache[value_place + vector{{ i }}]);
      {% endfor %}
      {% for r in range(rows) %}
      let weight{{ r }}_{{ j }} = subgroupBroadcast({{ "scaled" if int8 else "weight" }}{{ r }}, {{ j }}u);
      {% for i in range(mine) %}
      sum{{ r }}_{{ i }} += weight{{ r }}_{{ j }} * v{{ i }};
      {% endfor %}
      {% endfor %}
    }
    {% endfor %}
  }

  // ---- out, or the sums of this split ----
  {% for r in range(rows) %}
  let all{{ r }} = sum_of_lanes(total{{ r }});
  if (first_row + {{ r }}u < params.rows) {
    let at = (kv_head * params.rows + row{{ r }}) * params.splits + split;
    {% for i in range(mine) %}
    if (lane + {{ i * lanes }}u < VECTORS) {
      if (params.splits == 1u) {
        out[head{{ r }} + vector{{ i }}] = sum{{ r }}_{{ i }} / all{{ r }};
      } else {
        sums[at * VECTORS + vector{{ i }}] = sum{{ r }}_{{ i }};
      }
    }
    {% endfor %}
    if (lane == 0u && params.splits > 1u) {
      stats[at] = vec2<f32>(largest{{ r }}, all{{ r }});
    }
  }
  {% endfor %}
}
