{#
out[batch] = alpha * a[batch] x b[batch] + beta * bias, of float32 matrices: mm, bmm, addmm, and what training multiplies.

A workgroup of 16 x 16 invocations computes a tile of 64 * row_quads rows and 64 * column_quads columns, an invocation
4 * row_quads rows of 4 * column_quads columns, a step along k at a time.

Inputs:
  row_quads = 2 | 1: fours of rows of an invocation
  column_quads = 2 | 1: fours of columns of an invocation
  depth = 16 | 8: of a step along k
  bias = False | True: whether it is added
  a_transposed = False | True: a lies as [k, m]
  b_codes = False | True: b [k, n] holds codes of 4 bits with 8 added, the even one of a byte in the low nibble
#}
@group(0) @binding(0) var<storage, read> a: array<f32>;  // [batch, m, k]
{% if b_codes %}
@group(0) @binding(1) var<storage, read> b: array<u32>;
@group(0) @binding(5) var<storage, read> scales: array<f32>;  // [n / group_size, scale_stride], of each row of b and group
{% else %}
@group(0) @binding(1) var<storage, read> b: array<f32>;  // [batch, k, n]
{% endif %}
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
{% if b_codes %}
  b_bytes: u32,       // of a row of b
  group_size: u32,
  scale_stride: u32,
{% endif %}
}
@group(0) @binding(4) var<uniform> params: Params;

const DEPTH = {{ depth }}u;
const A_QUADS = {{ 16 * row_quads }}u;     // fours of rows of the tile
const B_QUADS = {{ 16 * column_quads }}u;  // fours of columns

var<workgroup> a_tile: array<vec4<f32>, DEPTH * A_QUADS>;  // [k, quads of rows]
var<workgroup> b_tile: array<vec4<f32>, DEPTH * B_QUADS>;  // [k, quads of columns]

fn a_at(base: u32, row: u32, k: u32) -> f32 {
  {% if a_transposed %}
  return a[base + k * params.m + min(row, params.m - 1u)];
  {% else %}
  return a[base + min(row, params.m - 1u) * params.k + k];
  {% endif %}
}

fn b_at(base: u32, k: u32, column: u32) -> f32 {
  {% if b_codes %}
  let inside = min(column, params.n - 1u);
  let byte = k * params.b_bytes + inside / 2u;
  let code = extractBits(b[byte / 4u], byte % 4u * 8u + inside % 2u * 4u, 4u);
  return (f32(code) - 8.0) * scales[inside / params.group_size * params.scale_stride + k];
  {% else %}
  return b[base + k * params.n + min(column, params.n - 1u)];
  {% endif %}
}

fn finished(sum: f32, row: u32, column: u32) -> f32 {
  {% if bias %}
  return params.alpha * sum + params.beta * bias[row * params.bias_row + column * params.bias_column];
  {% else %}
  return params.alpha * sum;
  {% endif %}
}

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let tile_row = tile / params.column_tiles * (4u * A_QUADS);
  let tile_column = tile % params.column_tiles * (4u * B_QUADS);
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
    for (var first = 0u; first < params.k; first += DEPTH) {
      // ---- a step to workgroup memory: neighbours read neighbouring elements, of a along k, or m, and of b along its rows ----
      for (var i = lane; i < DEPTH * A_QUADS; i += 256u) {
        {% if a_transposed %}
        let k = i / A_QUADS;
        let quad = i % A_QUADS;
        {% else %}
        let k = i % DEPTH;
        let quad = i / DEPTH;
        {% endif %}
        let row = tile_row + quad * 4u;
        let at = first + k;
        var values = vec4<f32>();
        if (at < params.k) {
          values = vec4<f32>(
            a_at(a_base, row, at), a_at(a_base, row + 1u, at), a_at(a_base, row + 2u, at), a_at(a_base, row + 3u, at));
        }
        a_tile[k * A_QUADS + quad] = values;
      }
      for (var i = lane; i < DEPTH * B_QUADS; i += 256u) {
        let at = first + i / B_QUADS;
        let column = tile_column + i % B_QUADS * 4u;
        var values = vec4<f32>();
        if (at < params.k) {
          values = vec4<f32>(b_at(b_base, at, column), b_at(b_base, at, column + 1u),
                             b_at(b_base, at, column + 2u), b_at(b_base, at, column + 3u));
        }
        b_tile[i] = values;
      }
      workgroupBarrier();

      // ---- its products ----
      for (var k = 0u; k < DEPTH; k++) {
        {% for i in range(row_quads) %}
        let a{{ i }} = a_tile[k * A_QUADS + local.y + {{ 16 * i }}u];
        {% endfor %}
        {% for c in range(column_quads) %}
        let b{{ c }} = b_tile[k * B_QUADS + local.x + {{ 16 * c }}u];
        {% endfor %}
        {% for r in range(4 * row_quads) %}
        {% for c in range(column_quads) %}
        sum{{ r }}_{{ c }} += a{{ r // 4 }}[{{ r % 4 }}] * b{{ c }};
        {% endfor %}
        {% endfor %}
      }
      workgroupBarrier();
    }

    // ---- output ----
    {% for r in range(4 * row_quads) %}
    {
      let row = tile_row + local.y * 4u + {{ r // 4 * 64 + r % 4 }}u;
      if (row < params.m) {
        let end = (batch * params.m + row) * params.n;
        {% for q in range(column_quads) %}
        let column{{ q }} = tile_column + local.x * 4u + {{ 64 * q }}u;
        for (var c = 0u; c < 4u && column{{ q }} + c < params.n; c++) {
          out[end + column{{ q }} + c] = finished(sum{{ r }}_{{ q }}[c], row, column{{ q }} + c);
        }
        {% endfor %}
      }
    }
    {% endfor %}
  }
}
