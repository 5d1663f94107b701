// out = a x transpose(b) + bias. One invocation computes {{ rows }} row(s) x {{ columns }} neighbouring columns, alone:
// what a CPU driver runs best, because a loaded vector serves several rows or columns and nobody waits.
{% include "linear/row_interface.wgsl" %}

override wg_size: u32 = 8;

{% if element == "f32" %}
fn product(x: f32, y: f32) -> f32 {
  return x * y;
}
{% else %}
fn product(x: vec4<f32>, y: vec4<f32>) -> f32 {
  return dot(x, y);
}
{% endif %}

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
  let a_row{{ r }} = min(row + {{ r }}u, params.m - 1u) * params.units;
  {% for c in range(columns) %}
  var sum{{ r }}_{{ c }} = 0.0;
  {% endfor %}
  {% endfor %}
  {% for c in range(columns) %}
  let b_row{{ c }} = min(column + {{ c }}u, params.n - 1u) * params.units;
  {% endfor %}
  for (var i = 0u; i < params.units; i++) {
    {% for r in range(rows) %}
    let a{{ r }} = a[a_row{{ r }} + i];
    {% endfor %}
    {% for c in range(columns) %}
    let b{{ c }} = b[b_row{{ c }} + i];
    {% for r in range(rows) %}
    sum{{ r }}_{{ c }} += product(a{{ r }}, b{{ c }});
    {% endfor %}
    {% endfor %}
  }
  {% for r in range(rows) %}
  if (row + {{ r }}u < params.m) {
    let end = (row + {{ r }}u) * params.n + column;
    {% for c in range(columns) %}
    if (column + {{ c }}u < params.n) {
      out[end + {{ c }}u] = sum{{ r }}_{{ c }}{{ " + bias[(column + %du) * params.bias_column]" % c if bias }};
    }
    {% endfor %}
  }
  {% endfor %}
}
