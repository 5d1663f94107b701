// out = x times the transpose of weights, plus bias. One invocation computes {{ rows }} row(s) x {{ columns }} neighbouring columns, alone:
// what a CPU driver runs best, because a loaded vector serves several rows or columns and nobody waits.
{% set element = "vec4<f32>" if quads else "f32" %}
@group(0) @binding(0) var<storage, read> x: array<{{ element }}>;  // [m, k]
// [n, k]
@group(0) @binding(1) var<storage, read> weights: array<{{ element if not half else "vec2<u32>" if quads else "u32" }}>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;  // [m, n]
{% if bias %}
@group(0) @binding(3) var<storage, read> bias: array<f32>;  // [n]
{% endif %}

struct Params {
  m: u32,
  n: u32,
  units: u32,         // {{ element }}s in a row of x and weights
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
}
@group(0) @binding(4) var<uniform> params: Params;

override wg_size: u32 = 8;

fn product(x: {{ element }}, y: {{ element }}) -> f32 {
  return {{ "dot(x, y)" if quads else "x * y" }};
}

fn load_weights(at: u32) -> {{ element }} {
  {% if not half %}
  return weights[at];
  {% elif quads %}
  let packed = weights[at];
  return vec4<f32>(unpack2x16float(packed.x), unpack2x16float(packed.y));
  {% else %}
  return unpack2x16float(weights[at / 2u])[at % 2u];
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let row = tile / params.column_tiles * {{ rows }}u;
  let column = (tile % params.column_tiles * wg_size + lane) * {{ columns }}u;
  if (row >= params.m || column >= params.n) {
    return;
  }
  // Rows and columns past the edge repeat the last one and are not stored.
  {% for r in range(rows) %}
  let x_row{{ r }} = min(row + {{ r }}u, params.m - 1u) * params.units;
  {% for c in range(columns) %}
  var sum{{ r }}_{{ c }} = 0.0;
  {% endfor %}
  {% endfor %}
  {% for c in range(columns) %}
  let w_row{{ c }} = min(column + {{ c }}u, params.n - 1u) * params.units;
  {% endfor %}
  for (var i = 0u; i < params.units; i++) {
    {% for r in range(rows) %}
    let x{{ r }} = x[x_row{{ r }} + i];
    {% endfor %}
    {% for c in range(columns) %}
    let w{{ c }} = load_weights(w_row{{ c }} + i);
    {% for r in range(rows) %}
    sum{{ r }}_{{ c }} += product(x{{ r }}, w{{ c }});
    {% endfor %}
    {% endfor %}
  }
  {% for r in range(rows) %}
  if (row + {{ r }}u < params.m) {
    let end = (row + {{ r }}u) * params.n + column;
    {% for c in range(columns) %}
    if (column + {{ c }}u < params.n) {
      out[end + {{ c }}u] = sum{{ r }}_{{ c }}{{ " + bias[column + %du]" % c if bias }};
    }
    {% endfor %}
  }
  {% endfor %}
}
