// One invocation computes {{ rows }} row(s) x {{ columns }} neighbouring columns, alone: what a CPU driver runs best.
// There, a load costs as much as a dozen multiplications, so a loaded x serves all columns and a weight all rows.
{% include "linear_quantized/call.wgsl" %}
{% from "linear_quantized/block.wgsl" import block_codes, load_block with context %}

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
  {% for c in range(columns) %}
  let start{{ c }} = min(column + {{ c }}u, params.n - 1u) * params.row_stride;
  {% endfor %}

  let blocks = (params.k + {{ step - 1 }}u) / {{ step }}u;
  for (var block = 0u; block < blocks; block++) {
    let k = block * {{ step }}u;
    {% for r in range(rows) %}
    {% for q in range(step // 4) %}
    let x{{ r }}_{{ q }} = load_x(row{{ r }}, k + {{ 4 * q }}u);
    {% endfor %}
    {% if mins %}
    let total{{ r }} = dot(x{{ r }}_0{% for q in range(1, step // 4) %} + x{{ r }}_{{ q }}{% endfor %}, vec4<f32>(1.0));
    {% endif %}
    {% endfor %}
    let scale_row = k / params.group_size * params.scale_quads;
    {% for c in range(columns) %}
    {% if c % 4 == 0 %}
    let packed_scales{{ c // 4 }} = scales[scale_row + min(column / 4u + {{ c // 4 }}u, params.scale_quads - 1u)];
    let scale{{ c // 4 }} = four_scales(packed_scales{{ c // 4 }});
    {% if mins %}
    let min{{ c // 4 }} = four_mins(packed_scales{{ c // 4 }});
    {% endif %}
    {% endif %}
    {
      {{ load_block("packed", "start%d" % c) | indent(6) }}
      {% for q in range(step // 4) %}
      let codes{{ q }} = {{ block_codes("packed", q) }};
      {% endfor %}
      {% for r in range(rows) %}
      sum{{ r }}_{{ c }} += scale{{ c // 4 }}[{{ c % 4 }}] * (
        {%- for q in range(step // 4) %}dot(codes{{ q }}, x{{ r }}_{{ q }}){{ " + " if not loop.last }}{% endfor %})
        {{- " + min%d[%d] * total%d" % (c // 4, c % 4, r) if mins }};
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
