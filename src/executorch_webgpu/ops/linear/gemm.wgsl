// out[batch] = alpha * a[batch] x b[batch] + beta * bias. One workgroup computes a tile of 64 rows x 64 columns,
// one invocation 4 x 4 of it, over steps of 32 along k.
@group(0) @binding(0) var<storage, read> a: array<f32>;  // [batch, m, k]
@group(0) @binding(1) var<storage, read> b: array<f32>;  // [batch, k, n]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;  // [batch, m, n]
{% if bias %}
@group(0) @binding(3) var<storage, read> bias: array<f32>;
{% endif %}

struct Params {
  m: u32,
  n: u32,
  k: u32,
  alpha: f32,
  beta: f32,
  bias_row: u32,      // strides of bias; 0 where it repeats
  bias_column: u32,
  column_tiles: u32,  // workgroups side by side; grid.x, y is the flat list of a batch's tiles, row by row
  batches: u32,
}
@group(0) @binding(4) var<uniform> params: Params;

var<workgroup> a_tile: array<vec4<f32>, 512>;  // [32 k, 64 rows]
var<workgroup> b_tile: array<vec4<f32>, 512>;  // [32 k, 64 columns]

fn a_at(base: u32, row: u32, k: u32) -> f32 {
  return a[base + min(row, params.m - 1u) * params.k + k];
}

fn b_at(base: u32, k: u32, column: u32) -> f32 {
  return b[base + k * params.n + min(column, params.n - 1u)];
}

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
  for (var batch = group.z; batch < params.batches; batch += groups.z) {
    let a_base = batch * params.m * params.k;
    let b_base = batch * params.k * params.n;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var first = 0u; first < params.k; first += 32u) {
      // Each invocation fills two vec4s of both tiles; neighbours read neighbouring elements where they can.
      for (var i = lane; i < 512u; i += 256u) {
        let a_k = i % 32u;
        let a_row = i / 32u * 4u;
        var a_values = vec4<f32>();
        if (first + a_k < params.k) {
          a_values = vec4<f32>(
            {%- for c in range(4) %}a_at(a_base, tile_row + a_row + {{ c }}u, first + a_k){{ ", " if not loop.last }}
            {%- endfor %});
        }
        a_tile[a_k * 16u + a_row / 4u] = a_values;
        let b_k = i / 16u;
        let b_column = i % 16u * 4u;
        var b_values = vec4<f32>();
        if (first + b_k < params.k) {
          b_values = vec4<f32>(
            {%- for c in range(4) %}b_at(b_base, first + b_k, tile_column + b_column + {{ c }}u)
            {{- ", " if not loop.last }}{% endfor %});
        }
        b_tile[b_k * 16u + b_column / 4u] = b_values;
      }
      workgroupBarrier();
      for (var k = 0u; k < 32u; k++) {
        let a_quad = a_tile[k * 16u + local.y];
        let b_quad = b_tile[k * 16u + local.x];
        {% for r in range(4) %}
        sum{{ r }} += a_quad[{{ r }}] * b_quad;
        {% endfor %}
      }
      workgroupBarrier();
    }

    let column = tile_column + local.x * 4u;
    {% for r in range(4) %}
    {
      let row = tile_row + local.y * 4u + {{ r }}u;
      if (row < params.m) {
        let end = (batch * params.m + row) * params.n;
        for (var c = 0u; c < 4u && column + c < params.n; c++) {
          out[end + column + c] = params.alpha * sum{{ r }}[c]
            {{- " + params.beta * bias[row * params.bias_row + (column + c) * params.bias_column]" if bias }};
        }
      }
    }
    {% endfor %}
  }
}
