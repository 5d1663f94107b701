{#
out = x times the transpose of weights of floats, plus bias. One invocation computes a few rows of neighbouring columns.

It does so alone: what a CPU's driver runs best, because a loaded vector serves several rows or columns, and it waits for no other.

Inputs:
  rows = 1 | 4: of an invocation
  columns = 8: of an invocation
  vec4_x = True | False: K is a multiple of 4, and x and weights are read as vec4s
  bits = 32 | 16: of a weight
  bias = False | True: whether it is added
#}
{% set element = "vec4<f32>" if vec4_x else "f32" %}
@group(0) @binding(0) var<storage, read> x: array<{{ element }}>;  // [m, k]
{% if bits == 32 %}
@group(0) @binding(1) var<storage, read> weights: array<{{ element }}>;  // [n, k]
{% else %}
@group(0) @binding(1) var<storage, read> weights: array<{{ "vec2<u32>" if vec4_x else "u32" }}>;  // [n, k]
{% endif %}
@group(0) @binding(2) var<storage, read_write> out: array<f32>;  // [m, n]
{% if bias %}
@group(0) @binding(3) var<storage, read> bias: array<f32>;  // [n]
{% endif %}

struct Params {
  m: u32,
  n: u32,
  units: u32,         // elements of the arrays in a row of x and weights
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
}
@group(0) @binding(4) var<uniform> params: Params;

override wg_size: u32 = 8;

const ROWS = {{ rows }}u;
const COLUMNS = {{ columns }}u;

fn product(x: {{ element }}, y: {{ element }}) -> f32 {
  {% if vec4_x %}
  return dot(x, y);
  {% else %}
  return x * y;
  {% endif %}
}

fn load_weights(at: u32) -> {{ element }} {
  {% if bits == 32 %}
  return weights[at];
  {% elif vec4_x %}
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
  let row = tile / params.column_tiles * ROWS;
  let column = (tile % params.column_tiles * wg_size + lane) * COLUMNS;
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
      {% if bias %}
      sum{{ r }}_{{ c }} += bias[column + {{ c }}u];
      {% endif %}
      out[end + {{ c }}u] = sum{{ r }}_{{ c }};
    }
    {% endfor %}
  }
  {% endfor %}
}
