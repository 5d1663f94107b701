// Softmax and attention * V for a few tokens.
// One workgroup computes {{ rows }} packed rows (see scores.wgsl) x a slice of D. Its invocations are
// `lanes` x {{ vectors }} vec4s of D times `parts` interleaved shares of the columns, added up at the end.
@group(0) @binding(0) var<storage, read> scores: array<f32>;         // [Hkv, block_rows, stride]
@group(0) @binding(1) var<storage, read> v_cache: array<vec4<f32>>;  // [Cmax, Hkv, D]
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

override wg_size: u32 = 64;
override lanes: u32 = 8;
override parts: u32 = 8;  // lanes * parts <= wg_size

const LOWEST = -3.4028234e38;

var<workgroup> partials: array<vec4<f32>, wg_size>;                      // one row a component
var<workgroup> eighths: array<vec4<f32>, 8>;
var<workgroup> sums: array<vec4<f32>, wg_size * {{ rows * vectors }}u>;  // of rows and vectors

@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let row = group.x * {{ rows }}u;
  let kv_head = group.z;
  let last_row = params.block_rows - 1u;
  {% for r in range(rows) %}
  let row{{ r }} = min(row + {{ r }}u, last_row);
  let columns{{ r }} = u32(input_pos) + row{{ r }} / params.group_size + 1u;
  let base{{ r }} = (kv_head * params.block_rows + row{{ r }}) * params.stride;
  {% endfor %}

  var largest = vec4<f32>(LOWEST);
  for (var c = index; c < columns{{ rows - 1 }}; c += wg_size) {
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

  let lane = index % lanes;
  let part = index / lanes;
  let vector = group.y * lanes * {{ vectors }}u + lane;
  var total = vec4<f32>();
  {% for r in range(rows) %}
  {% for d in range(vectors) %}
  var sum{{ r }}_{{ d }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  if (part < parts && vector < params.vectors) {
    for (var c = part; c < columns{{ rows - 1 }}; c += parts) {
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

  // Each lane of a part summed the weights of that part's columns; they are added up like the values.
  partials[index] = total;
  {% for r in range(rows) %}
  {% for d in range(vectors) %}
  sums[index + {{ r * vectors + d }}u * wg_size] = sum{{ r }}_{{ d }};
  {% endfor %}
  {% endfor %}
  workgroupBarrier();
  if (index >= lanes || vector >= params.vectors) {
    return;
  }
  for (var p = 1u; p < parts; p++) {
    let other = index + p * lanes;
    total += partials[other];
    {% for r in range(rows) %}
    {% for d in range(vectors) %}
    sum{{ r }}_{{ d }} += sums[other + {{ r * vectors + d }}u * wg_size];
    {% endfor %}
    {% endfor %}
  }
  let heads = params.kv_heads * params.group_size;
  {% for r in range(rows) %}
  if (row + {{ r }}u <= last_row) {
    let head{{ r }} = kv_head * params.group_size + row{{ r }} % params.group_size;
    let at{{ r }} = (row{{ r }} / params.group_size * heads + head{{ r }}) * params.vectors + vector;
    {% for d in range(vectors) %}
    out[at{{ r }} + {{ d }}u * lanes] = sum{{ r }}_{{ d }} / total[{{ r }}];
    {% endfor %}
  }
  {% endfor %}
}
