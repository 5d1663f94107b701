{#
Softmax and attention * V for a few tokens, whose scores are in memory.

One workgroup computes ROWS packed rows x a slice of D. Its invocations are `lanes` x VECTORS vec4s of D times `parts`
interleaved shares of the columns, added up at the end.

Inputs:
  rows = 4 | 1 | 2 | 3: packed rows of a workgroup
  vectors = 2 | 1: vec4s of D of an invocation
#}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/packed_rows.wgsl" %}

@group(0) @binding(0) var<storage, read> scores: array<f32>;           // [Hkv, block_rows, stride]
@group(0) @binding(1) var<storage, read> v_cache: array<vec4<f32>>;    // [Cmax, Hkv, D]
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;  // [S, Hq, D]

struct Params {
  block_rows: u32,
  kv_heads: u32,
  group_size: u32,
  vectors: u32,  // D / 4
  stride: u32,   // elements between two rows of scores
}
@group(0) @binding(3) var<uniform> params: Params;
@group(0) @binding(4) var<uniform> input_pos: i32;

const ROWS = {{ rows }}u;
const VECTORS = {{ vectors }}u;

override wg_size: u32 = 64;
override lanes: u32 = 8;
override parts: u32 = 8;  // lanes * parts <= wg_size

var<workgroup> partials: array<vec4<f32>, wg_size>;  // one row a component
var<workgroup> eighths: array<vec4<f32>, 8>;
var<workgroup> sums: array<vec4<f32>, wg_size * ROWS * VECTORS>;

@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let row = group.x * ROWS;
  let kv_head = group.z;
  let last_row = params.block_rows - 1u;
  {% for r in range(rows) %}
  let row{{ r }} = min(row + {{ r }}u, last_row);
  let columns{{ r }} = u32(input_pos) + row{{ r }} / params.group_size + 1u;
  let base{{ r }} = (kv_head * params.block_rows + row{{ r }}) * params.stride;
  {% endfor %}
  let columns = columns{{ rows - 1 }};

  // ---- the largest score of each row ----
  var largest = vec4<f32>(LOWEST);
  for (var c = index; c < columns; c += wg_size) {
    {% for r in range(rows) %}
    largest[{{ r }}] = max(largest[{{ r }}], select(LOWEST, scores[base{{ r }} + c], c < columns{{ r }}));
    {% endfor %}
  }
  partials[index] = largest;
  workgroupBarrier();
  if (index < 8u) {
    for (var i = index + 8u; i < wg_size; i += 8u) {
      largest = max(largest, partials[i]);
    }
    eighths[index] = largest;
  }
  workgroupBarrier();
  for (var i = 0u; i < 8u; i++) {
    largest = max(largest, eighths[i]);
  }

  // ---- weighted sums of the values, a share of the columns each ----
  let lane = index % lanes;
  let part = index / lanes;
  let vector = group.y * lanes * VECTORS + lane;
  var total = vec4<f32>();
  {% for r in range(rows) %}{% for d in range(vectors) %}
  var sum{{ r }}_{{ d }} = vec4<f32>();
  {% endfor %}{% endfor %}
  if (part < parts && vector < params.vectors) {
    for (var c = part; c < columns; c += parts) {
      let v = (c * params.kv_heads + kv_head) * params.vectors + vector;
      {% for d in range(vectors) %}
      let value{{ d }} = v_cache[v + {{ d }}u * lanes];
      {% endfor %}
      {% for r in range(rows) %}
      let weight{{ r }} = select(0.0, exp(scores[base{{ r }} + c] - largest[{{ r }}]), c < columns{{ r }});
      total[{{ r }}] += weight{{ r }};
      {% for d in range(vectors) %}
      sum{{ r }}_{{ d }} += weight{{ r }} * value{{ d }};
      {% endfor %}
      {% endfor %}
    }
  }

  // ---- the parts are added up: each lane of a part has summed the weights of the part's columns, too ----
  partials[index] = total;
  {% for r in range(rows) %}{% for d in range(vectors) %}
  sums[index + ({{ r }}u * VECTORS + {{ d }}u) * wg_size] = sum{{ r }}_{{ d }};
  {% endfor %}{% endfor %}
  workgroupBarrier();
  if (index >= lanes || vector >= params.vectors) {
    return;
  }
  for (var p = 1u; p < parts; p++) {
    let other = index + p * lanes;
    total += partials[other];
    {% for r in range(rows) %}{% for d in range(vectors) %}
    sum{{ r }}_{{ d }} += sums[other + ({{ r }}u * VECTORS + {{ d }}u) * wg_size];
    {% endfor %}{% endfor %}
  }

  // ---- out ----
  {% for r in range(rows) %}
  if (row + {{ r }}u <= last_row) {
    let head = query_head(row{{ r }}, kv_head, params.kv_heads, params.group_size);
    {% for d in range(vectors) %}
    out[head * params.vectors + vector + {{ d }}u * lanes] = sum{{ r }}_{{ d }} / total[{{ r }}];
    {% endfor %}
  }
  {% endfor %}
}
