{#
out = the sums of the splits of a context, each rescaled to the largest score of the row, over their totals.

One workgroup computes `lanes` vec4s of one packed row: `parts` interleaved shares of the splits, added up at the end.

Inputs:
  paged = False | True: every token has a place of its own, and a context; one of a single split is done already
  listed = False | True: whether the tokens are those of a list, not all
#}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/packed_rows.wgsl" %}
{% if paged %}
{% include "attention/row_places.wgsl" %}
{% endif %}

@group(0) @binding(0) var<storage, read> sums: array<vec4<f32>>;       // [Hkv, rows, splits, D]
@group(0) @binding(1) var<storage, read> stats: array<vec2<f32>>;      // [Hkv, rows, splits]: maximum, total
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;  // [S, Hq, D]

struct Params {
  rows: u32,        // packed rows of a KV head
  group_size: u32,
  kv_heads: u32,
  vectors: u32,     // D / 4
  chunk: u32,       // columns of a split
  splits: u32,      // that were planned; a row reads those that hold a column it sees
{% if paged %}
  first_token: u32,
{% endif %}
}
@group(0) @binding(3) var<uniform> params: Params;
{% if not paged %}
@group(0) @binding(4) var<uniform> input_pos: i32;
{% endif %}

override wg_size: u32 = 128;
override lanes: u32 = 8;
override parts: u32 = 16;  // lanes * parts <= wg_size

var<workgroup> part_sums: array<vec4<f32>, wg_size>;
var<workgroup> part_stats: array<vec2<f32>, wg_size>;

@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let row = group.x;
  let kv_head = group.y;
  {% if paged %}
  let place = row_place(params.first_token + row / params.group_size);
  let position = place.position;
  let first_row = place.row * params.group_size;  // of the token
  if (position + 1u <= params.chunk) {
    return;
  }
  {% else %}
  let position = u32(input_pos) + row / params.group_size;
  let first_row = row / params.group_size * params.group_size;
  {% endif %}
  let splits = (position + params.chunk) / params.chunk;
  let base = (kv_head * params.rows + row) * params.splits;
  let lane = index % lanes;
  let part = index / lanes;
  let vector = group.z * lanes + lane;

  // ---- a share of the splits, rescaled on the way, so that no split waits for the maximum of all ----
  var largest = LOWEST;
  var total = 0.0;
  var sum = vec4<f32>();
  if (part < parts && vector < params.vectors) {
    for (var s = part; s < splits; s += parts) {
      let stat = stats[base + s];
      let value = sums[(base + s) * params.vectors + vector];
      let most = max(largest, stat.x);
      let before = exp(largest - most);
      let weight = exp(stat.x - most);
      total = before * total + weight * stat.y;
      sum = before * sum + weight * value;
      largest = most;
    }
  }

  // ---- the shares are put together ----
  part_sums[index] = sum;
  part_stats[index] = vec2<f32>(largest, total);
  workgroupBarrier();
  if (index >= lanes || vector >= params.vectors) {
    return;
  }
  for (var p = 1u; p < parts; p++) {
    largest = max(largest, part_stats[index + p * lanes].x);
  }
  total = 0.0;
  sum = vec4<f32>();
  for (var p = 0u; p < parts; p++) {
    let stat = part_stats[index + p * lanes];
    let weight = exp(stat.x - largest);
    total += weight * stat.y;
    sum += weight * part_sums[index + p * lanes];
  }
  let head = query_head(first_row + row % params.group_size, kv_head, params.kv_heads, params.group_size);
  out[head * params.vectors + vector] = sum / total;
}
