{#
Turns the scores of a block into probabilities, in place, over the columns that a row may see.

One workgroup computes a row. Past those columns it writes zeros as far as attention/large_heads/values reads: to the
end of its tile of ROWS rows.

Inputs:
  rows = 8: packed rows of a tile
#}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/workgroup_reduce.wgsl" %}

@group(0) @binding(0) var<storage, read_write> scores: array<f32>;  // [Hkv, block_rows, stride]

struct Params {
  block_rows: u32,   // packed rows of one KV head in this block
  first_token: u32,
  group_size: u32,
  stride: u32,       // elements between two rows of scores
}
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<uniform> input_pos: i32;

const ROWS = {{ rows }}u;

@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let tile_last_row = min(row / ROWS * ROWS + ROWS - 1u, params.block_rows - 1u);
  let first = u32(input_pos) + params.first_token;
  let columns = first + row / params.group_size + 1u;
  let tile_columns = first + tile_last_row / params.group_size + 1u;
  let base = (group.y * params.block_rows + row) * params.stride;

  var largest = LOWEST;
  for (var c = lane; c < columns; c += wg_size) {
    largest = max(largest, scores[base + c]);
  }
  largest = workgroup_max(largest, lane);

  var sum = 0.0;
  for (var c = lane; c < columns; c += wg_size) {
    sum += exp(scores[base + c] - largest);
  }
  let inverse = 1.0 / workgroup_sum(sum, lane);
  for (var c = lane; c < (tile_columns + 3u) / 4u * 4u; c += wg_size) {
    scores[base + c] = select(0.0, exp(scores[base + c] - largest) * inverse, c < columns);
  }
}
