// out[batch] = alpha * a[batch] x b[batch] + beta * bias. One workgroup computes a tile of {{ 64 * row_quads }} rows x
// {{ 64 * column_quads }} columns, one invocation {{ 4 * row_quads }} x {{ 4 * column_quads }} of it, over steps of {{ depth }} along k.
{% set a_rows = 16 * row_quads %}
{% set b_columns = 16 * column_quads %}
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

var<workgroup> a_tile: array<vec4<f32>, {{ depth * a_rows }}>;     // [{{ depth }} k, {{ a_rows }} row quads]
var<workgroup> b_tile: array<vec4<f32>, {{ depth * b_columns }}>;  // [{{ depth }} k, {{ b_columns }} column quads]

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
  let tile_row = tile / params.column_tiles * {{ 4 * a_rows }}u;
  let tile_column = tile % params.column_tiles * {{ 4 * b_columns }}u;
  if (tile_row >= params.m) {
    return;
  }
  for (var batch = group.z; batch < params.batches; batch += groups.z) {
    let a_base = batch * params.m * params.k;
    let b_base = batch * params.k * params.n;
    {% for r in range(4 * row_quads) %}
    {% for c in range(column_quads) %}
    var sum{{ r }}_{{ c }} = vec4<f32>();
    {% endfor %}
    {% endfor %}
    for (var first = 0u; first < params.k; first += {{ depth }}u) {
      // Neighbours read neighbouring elements, of a along k and of b along its rows.
      for (var i = lane; i < {{ depth * a_rows }}u; i += 256u) {
        let k = i % {{ depth }}u;
        let row = i / {{ depth }}u * 4u;
        var values = vec4<f32>();
        if (first + k < params.k) {
          values = vec4<f32>(
            {%- for r in range(4) %}a_at(a_base, tile_row + row + {{ r }}u, first + k){{ ", " if not loop.last }}
            {%- endfor %});
        }
        a_tile[k * {{ a_rows }}u + row / 4u] = values;
      }
      for (var i = lane; i < {{ depth * b_columns }}u; i += 256u) {
        let k = i / {{ b_columns }}u;
        let column = i % {{ b_columns }}u * 4u;
        var values = vec4<f32>();
        if (first + k < params.k) {
          values = vec4<f32>(
            {%- for c in range(4) %}b_at(b_base, first + k, tile_column + column + {{ c }}u)
            {{- ", " if not loop.last }}{% endfor %});
        }
        b_tile[k * {{ b_columns }}u + column / 4u] = values;
      }
      workgroupBarrier();
      for (var k = 0u; k < {{ depth }}u; k++) {
        {% for i in range(row_quads) %}
        let a{{ i }} = a_tile[k * {{ a_rows }}u + local.y + {{ 16 * i }}u];
        {% endfor %}
        {% for c in range(column_quads) %}
        let b{{ c }} = b_tile[k * {{ b_columns }}u + local.x + {{ 16 * c }}u];
        {% endfor %}
        {% for r in range(4 * row_quads) %}
        {% for c in range(column_quads) %}
        sum{{ r }}_{{ c }} += a{{ r // 4 }}[{{ r % 4 }}] * b{{ c }};
        {% endfor %}
        {% endfor %}
      }
      workgroupBarrier();
    }

    {% for r in range(4 * row_quads) %}
    {
      let row = tile_row + local.y * 4u + {{ r // 4 * 64 + r % 4 }}u;
      if (row < params.m) {
        let end = (batch * params.m + row) * params.n;
        {% for q in range(column_quads) %}
        let column{{ q }} = tile_column + local.x * 4u + {{ 64 * q }}u;
        for (var c = 0u; c < 4u && column{{ q }} + c < params.n; c++) {
          out[end + column{{ q }} + c] = params.alpha * sum{{ r }}_{{ q }}[c]
            {{- " + params.beta * bias[row * params.bias_row + (column%d + c) * params.bias_column]" % q if bias }};
        }
        {% endfor %}
      }
    }
    {% endfor %}
  }
}
