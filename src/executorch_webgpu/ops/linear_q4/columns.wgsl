// One invocation computes {{ rows }} row(s) x {{ columns }} neighbouring columns, alone: what a CPU driver runs best.
// There, a load costs as much as a dozen multiplications, so a loaded x serves all columns and a weight all rows.
{% include "linear_q4/call.wgsl" %}

override wg_size: u32 = 8;

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
  let row{{ r }} = min(row + {{ r }}u, params.m - 1u);
  {% for c in range(columns) %}
  var sum{{ r }}_{{ c }} = 0.0;
  {% endfor %}
  {% endfor %}
  let stride = params.row_words / {{ words }}u;
  {% for c in range(columns) %}
  let start{{ c }} = min(column + {{ c }}u, params.n - 1u) * stride;
  {% endfor %}

  let blocks = (params.k + {{ 8 * words - 1 }}u) / {{ 8 * words }}u;
  for (var block = 0u; block < blocks; block++) {
    let k = block * {{ 8 * words }}u;
    {% for r in range(rows) %}
    {% for h in range(2 * words) %}
    let x{{ r }}_{{ h }} = load_x(row{{ r }}, k + {{ 4 * h }}u);
    {% endfor %}
    {% endfor %}
    let scale_row = k / params.group_size * params.scale_quads;
    {% for c in range(columns) %}
    {% if c % 4 == 0 %}
    let scale{{ c // 4 }} = scales[scale_row + min(column / 4u + {{ c // 4 }}u, params.scale_quads - 1u)];
    {% endif %}
    {
      let packed = weights[start{{ c }} + block];
      {% for w in range(words) %}
      let low{{ w }} = low_half(packed{{ "[%d]" % w if words > 1 }});
      let high{{ w }} = high_half(packed{{ "[%d]" % w if words > 1 }});
      {% endfor %}
      {% for r in range(rows) %}
      sum{{ r }}_{{ c }} += scale{{ c // 4 }}[{{ c % 4 }}] * (
        {%- for w in range(words) %}dot(low{{ w }}, x{{ r }}_{{ 2 * w }}) + dot(high{{ w }}, x{{ r }}_{{ 2 * w + 1 }})
        {{- " + " if not loop.last }}{% endfor %});
      {% endfor %}
    }
    {% endfor %}
  }
  {% for r in range(rows) %}
  if (row + {{ r }}u < params.m) {
    let end = row{{ r }} * params.n + column;
    {% for c in range(columns) %}
    if (column + {{ c }}u < params.n) {
      out[end + {{ c }}u] = sum{{ r }}_{{ c }}{{ " + bias[column + %du]" % c if bias }};
    }
    {% endfor %}
  }
  {% endfor %}
}
