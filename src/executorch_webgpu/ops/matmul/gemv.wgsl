// {{ rows }} row(s) of x times packed weights: what few rows take, and the time of which is that of reading the weights.
//
// `lanes` neighbouring invocations are a team. A team computes {{ quads_of_team }} quad(s) of columns of all rows; its
// lanes share K, and each has {{ unroll }} unit(s) of every quad on the way before it uses them. At the end the parts of
// the lanes, or of subgroups, are added in workgroup memory.
{% set forth = 1 if per_unit == 4 else 2 %}
{% set sums = rows * quads_of_team %}
{% set squares = (rows + 3) // 4 if norm else 0 %}
{% set parts = sums + squares %}
{% set out_quads = quads_of_team // 2 if gated else quads_of_team %}
{# Which element of the output the workgroup's invocation i finishes. #}
{% macro element(i) %}
let c = {{ i }} % 4u;
let out_quad = {{ i }} / 4u % (teams * {{ out_quads }}u);
let r = {{ i }} / (teams * {{ out_quads * 4 }}u);
let row = first_row + r;
{%- endmacro %}
{% include "matmul/call.wgsl" %}
{% include "matmul/store.wgsl" %}
{% include "linear_quantized/load_x.wgsl" %}

override wg_size: u32 = 128;
override lanes: u32 = 32;          // of a team; wg_size is a multiple
override partial_count: u32 = 128;  // workgroup memory: wg_size{{ " / the smallest subgroup" if subgroups }}

var<workgroup> partials: array<vec4<f32>, partial_count * {{ parts }}u>;

{% if norm %}
{% include "matmul/load_norm_weight.wgsl" %}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
{% if subgroups %}
  @builtin(subgroup_size) subgroup_size: u32,
  @builtin(subgroup_invocation_id) subgroup_lane: u32,
{% endif %}
) {
  let tile = group.x + group.y * groups.x;
  let first_row = tile / params.column_tiles * {{ rows }}u;
  if (first_row >= params.m) {
    return;
  }
  let teams = wg_size / lanes;
  let tile_quad = tile % params.column_tiles * teams * {{ quads_of_team }}u;
  let first_quad = tile_quad{{ " / 2u" if gated }};  // of the output
  let team_quad = tile_quad + index / lanes * {{ quads_of_team }}u;
  // Rows and quads past the edge repeat the last one and are not stored.
  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + {{ r }}u, params.m - 1u);
  {% endfor %}
  {% for u in range(quads_of_team) %}
  let quad{{ u }} = min(team_quad + {{ u }}u, params.quads - 1u);
  {% if form %}
  let start{{ u }} = quad{{ u }} * params.units;
  let scale_start{{ u }} = quad{{ u }} * params.groups;
  {% else %}
  let start{{ u }} = min(vec4<u32>(quad{{ u }} * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.last)) * params.units;
  {% endif %}
  {% for r in range(rows) %}
  var sum{{ r }}_{{ u }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  {% if norm %}
  {% for s in range(squares) %}
  var squares{{ s }} = vec4<f32>();
  {% endfor %}
  {% endif %}

  {% if residual %}
  var ahead: f32;  // loaded while the weights are
  {
    {{ element("index") | indent(4) }}
    ahead = residual_of(row, first_quad + out_quad, c);
  }
  {% endif %}
  for (var step = index % lanes; step < params.units; step += lanes * {{ unroll }}u) {
    {% for i in range(unroll) %}
    let unit{{ i }} = {{ "min(step + %du * lanes, params.units - 1u)" % i if i else "step" }};
    {% for u in range(quads_of_team) %}
    {% if form %}
    let packed{{ i }}_{{ u }} = weights[start{{ u }} + unit{{ i }}];
    {% else %}
    {% for c in range(4) %}
    let weight{{ i }}_{{ u }}_{{ c }} = load_weights(start{{ u }}[{{ c }}] + unit{{ i }});
    {% endfor %}
    {% endif %}
    {% endfor %}
    {% endfor %}
    {% for i in range(unroll) %}
    {% if form %}
    {% for u in range(quads_of_team) %}
    let packed_scales{{ i }}_{{ u }} = scales[scale_start{{ u }} + group_of(unit{{ i }})];
    {% endfor %}
    {% endif %}
    {% for q in range(forth) %}
    {% set k = "unit%d * %du + %du" % (i, per_unit, 4 * q) %}
    {% if norm %}
    let norm{{ i }}_{{ q }} = load_norm_weight({{ k }});
    {% endif %}
    {% for r in range(rows) %}
    {{ "var" if norm else "let" }} x{{ i }}_{{ r }}_{{ q }} = load_x(row{{ r }}, {{ k }});
    {% endfor %}
    {% endfor %}
    {% endfor %}
    {% for i in range(unroll) %}
    {{ "if (step + %du * lanes < params.units) {" % i if i else "{" }}
      {% for r in range(rows) %}
      {% for q in range(forth) if norm %}
      squares{{ r // 4 }}[{{ r % 4 }}] += dot(x{{ i }}_{{ r }}_{{ q }}, x{{ i }}_{{ r }}_{{ q }});
      x{{ i }}_{{ r }}_{{ q }} *= norm{{ i }}_{{ q }};
      {% endfor %}
      {% if mins %}
      let total{{ r }} = dot(x{{ i }}_{{ r }}_0{{ " + x%d_%d_1" % (i, r) if forth == 2 }}, vec4<f32>(1.0));
      {% endif %}
      {% endfor %}
      {% for u in range(quads_of_team) %}
      {% for r in range(rows) %}
      var dots{{ r }}_{{ u }} = vec4<f32>();
      {% endfor %}
      {% for c in range(4) %}
      {% for q in range(forth) %}
      {
        {% if form %}
        let codes = float_codes(packed{{ i }}_{{ u }}[{{ c }}]{{ " >> 16u" if q }});
        {% else %}
        let codes = weight{{ i }}_{{ u }}_{{ c }};
        {% endif %}
        {% for r in range(rows) %}
        dots{{ r }}_{{ u }}[{{ c }}] += dot(codes, x{{ i }}_{{ r }}_{{ q }});
        {% endfor %}
      }
      {% endfor %}
      {% endfor %}
      {% for r in range(rows) %}
      sum{{ r }}_{{ u }} += {{ "four_scales(packed_scales%d_%d) * " % (i, u) if form }}dots{{ r }}_{{ u }}
        {{- " + four_mins(packed_scales%d_%d) * total%d" % (i, u, r) if mins }};
      {% endfor %}
      {% endfor %}
    }
    {% endfor %}
  }

  {% include "matmul/gemv_finish.wgsl" %}
}
