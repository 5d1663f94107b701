// One workgroup computes a tile of 64 rows x 64 columns, one invocation 4 x 4 of it, over steps of 32 along k.
{% include "linear_quantized/call.wgsl" %}

var<workgroup> x_tile: array<vec4<f32>, 512>;  // [64 rows, 32 k]
var<workgroup> w_tile: array<vec4<f32>, 512>;  // [32 k, 64 columns], dequantized

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let tile_row = tile / params.column_tiles * 64u;
  let tile_column = tile % params.column_tiles * 64u;
  if (tile_row >= params.m) {
    return;
  }
  // Rows and columns past the edge repeat the last one and are not stored.
  let x_row = min(tile_row + lane / 8u, params.m - 1u);
  let x_row_2 = min(tile_row + lane / 8u + 32u, params.m - 1u);
  let columns = min(vec4<u32>(tile_column + local.x * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u));
  let starts = columns * params.row_stride;
  let scale_quad = columns[0] / 4u;

  var sum0 = vec4<f32>();
  var sum1 = vec4<f32>();
  var sum2 = vec4<f32>();
  var sum3 = vec4<f32>();
  for (var first = 0u; first < params.k; first += 32u) {
    x_tile[lane] = load_x(x_row, first + lane % 8u * 4u);
    x_tile[lane + 256u] = load_x(x_row_2, first + lane % 8u * 4u);
    // Two rows of w_tile, four columns: two weights of the same word in each of four rows of weights.
    let k = first + local.y * 2u;
    var low = vec4<f32>();
    var high = vec4<f32>();
    if (k < params.k) {
      let word = k / {{ per_word }}u;
      let words = vec4<u32>(
        load_weights(starts[0], word), load_weights(starts[1], word),
        load_weights(starts[2], word), load_weights(starts[3], word),
      );
      let packed_scales = scales[k / params.group_size * params.scale_quads + scale_quad];
      low = four_scales(packed_scales) * codes_at(words, k){{ " + four_mins(packed_scales)" if mins }};
      high = four_scales(packed_scales) * codes_at(words, k + 1u){{ " + four_mins(packed_scales)" if mins }};
    }
    w_tile[local.y * 32u + local.x] = low;
    w_tile[local.y * 32u + 16u + local.x] = high;
    workgroupBarrier();
    for (var quad = 0u; quad < 8u; quad++) {
      let w0 = w_tile[quad * 64u + local.x];
      let w1 = w_tile[quad * 64u + 16u + local.x];
      let w2 = w_tile[quad * 64u + 32u + local.x];
      let w3 = w_tile[quad * 64u + 48u + local.x];
      {% for r in range(4) %}
      let x{{ r }} = x_tile[(local.y * 4u + {{ r }}u) * 8u + quad];
      sum{{ r }} += x{{ r }}[0] * w0 + x{{ r }}[1] * w1 + x{{ r }}[2] * w2 + x{{ r }}[3] * w3;
      {% endfor %}
    }
    workgroupBarrier();
  }

  let column = tile_column + local.x * 4u;
  {% for r in range(4) %}
  {
    let row = tile_row + local.y * 4u + {{ r }}u;
    if (row < params.m) {
      {% for c in range(4) %}
      if (column + {{ c }}u < params.n) {
        out[row * params.n + column + {{ c }}u] = sum{{ r }}[{{ c }}]{{ " + bias[column + %du]" % c if bias }};
      }
      {% endfor %}
    }
  }
  {% endfor %}
}
