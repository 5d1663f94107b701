// Many rows of x times packed weights, in float32. A workgroup computes {{ 64 * row_quads }} rows of
// {{ 16 * column_quads }} quads of columns, an invocation {{ 4 * row_quads }} rows of {{ column_quads }} quads, over steps of
// {{ depth }} along K. The next step's x and weights are on the way while this one's are multiplied.
{% set x_rows = 16 * row_quads %}
{% set w_columns = 16 * column_quads %}
{% set x_depth = depth // 4 %}
{% set w_depth = depth // per_unit %}
{% include "matmul/call.wgsl" %}
{% include "matmul/store.wgsl" %}
{% include "linear_quantized/load_x.wgsl" %}

var<workgroup> x_tile: array<vec4<f32>, {{ depth * x_rows }}>;     // [{{ depth }} k, {{ x_rows }} row quads]
var<workgroup> w_tile: array<vec4<f32>, {{ depth * w_columns }}>;  // [{{ depth }} k, {{ w_columns }} column quads]

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let tile = group.x + group.y * groups.x;
  let tile_row = tile / params.column_tiles * {{ 4 * x_rows }}u;
  let tile_quad = tile % params.column_tiles * {{ w_columns }}u;
  if (tile_row >= params.m) {
    return;
  }
  // The first half of the invocations stages x, four rows of four k each; the second one weights, a unit of a quad.
  // Rows and quads past the edge repeat the last one and are not stored.
  let stager = index % 128u;
  let stages_x = index < {{ x_rows * x_depth }}u;
  let stages_w = index >= 128u && stager < {{ w_columns * w_depth }}u;
  let x_k = stager % {{ x_depth }}u * 4u;
  let x_quad = stager / {{ x_depth }}u % {{ x_rows }}u;
  {% for r in range(4) %}
  let row{{ r }} = min(tile_row + x_quad * 4u + {{ r }}u, params.m - 1u);
  var x{{ r }} = vec4<f32>();
  {% endfor %}
  let w_unit = stager % {{ w_depth }}u;
  let w_place = stager / {{ w_depth }}u % {{ w_columns }}u;
  let w_quad = min(tile_quad + w_place, params.quads - 1u);
  {% if form %}
  let w_start = w_quad * params.units;
  let scale_start = w_quad * params.groups;
  var packed = vec4<u32>();
  var packed_scales = scales[scale_start];
  {% else %}
  let w_start = min(vec4<u32>(w_quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.last)) * params.units;
  {% for c in range(4) %}
  var w{{ c }} = vec4<f32>();
  {% endfor %}
  {% endif %}
  // The quads of an invocation are neighbours, but in the tile they lie {{ 16 }} apart.
  let w_to = w_unit * {{ per_unit * w_columns }}u + w_place % {{ column_quads }}u * 16u + w_place / {{ column_quads }}u;
  let x_to = x_k * {{ x_rows }}u + x_quad;

  {% for r in range(4 * row_quads) %}
  {% for j in range(column_quads) %}
  var sum{{ r }}_{{ j }} = vec4<f32>();
  {% endfor %}
  {% endfor %}

  {% macro load(first) %}
  if (stages_x) {
    {% for r in range(4) %}
    x{{ r }} = load_x(row{{ r }}, {{ first }} + x_k);
    {% endfor %}
  }
  if (stages_w) {
    let unit = min({{ first }} / {{ per_unit }}u + w_unit, params.units - 1u);
    {% if form %}
    packed = weights[w_start + unit];
    packed_scales = scales[scale_start + group_of(unit)];
    {% else %}
    let inside = {{ first }} / {{ per_unit }}u + w_unit < params.units;
    {% for c in range(4) %}
    w{{ c }} = select(vec4<f32>(), load_weights(w_start[{{ c }}] + unit), inside);
    {% endfor %}
    {% endif %}
  }
  {% endmacro %}
  {{ load("0u") }}
  for (var first = 0u; first < params.k; first += {{ depth }}u) {
    if (stages_x) {
      {% for k in range(4) %}
      x_tile[x_to + {{ k * x_rows }}u] = vec4<f32>(x0[{{ k }}], x1[{{ k }}], x2[{{ k }}], x3[{{ k }}]);
      {% endfor %}
    }
    if (stages_w) {
      {% if form %}
      let scale = four_scales(packed_scales);
      {% if mins %}
      let least = four_mins(packed_scales);
      {% endif %}
      {% for k in range(per_unit) %}
      w_tile[w_to + {{ k * w_columns }}u] = scale * codes_at(packed, {{ k }}u){{ " + least" if mins }};
      {% endfor %}
      {% else %}
      {% for k in range(4) %}
      w_tile[w_to + {{ k * w_columns }}u] = vec4<f32>(w0[{{ k }}], w1[{{ k }}], w2[{{ k }}], w3[{{ k }}]);
      {% endfor %}
      {% endif %}
    }
    workgroupBarrier();
    if (first + {{ depth }}u < params.k) {
      {{ load("(first + %du)" % depth) | indent(4) }}
    }
    for (var k = 0u; k < {{ depth }}u; k++) {
      {% for i in range(row_quads) %}
      let a{{ i }} = x_tile[k * {{ x_rows }}u + local.y + {{ 16 * i }}u];
      {% endfor %}
      {% for j in range(column_quads) %}
      let b{{ j }} = w_tile[k * {{ w_columns }}u + local.x + {{ 16 * j }}u];
      {% endfor %}
      {% for r in range(4 * row_quads) %}
      {% for j in range(column_quads) %}
      sum{{ r }}_{{ j }} += a{{ r // 4 }}[{{ r % 4 }}] * b{{ j }};
      {% endfor %}
      {% endfor %}
    }
    workgroupBarrier();
  }

  let quad = tile_quad + local.x * {{ column_quads }}u;
  {% for r in range(4 * row_quads) %}
  {
    let row = tile_row + local.y * 4u + {{ r // 4 * 64 + r % 4 }}u;
    if (row < params.m) {
      {% if gated %}
      if (quad < params.quads) {
        {% for c in range(4) %}
        store(row, quad / 2u, {{ c }}u, silu(with_bias(sum{{ r }}_0[{{ c }}], quad * 4u + {{ c }}u))
          * with_bias(sum{{ r }}_1[{{ c }}], quad * 4u + {{ c + 4 }}u));
        {% endfor %}
      }
      {% else %}
      {% for j in range(column_quads) %}
      if (quad + {{ j }}u < params.quads) {
        {% for c in range(4) %}
        store(row, quad + {{ j }}u, {{ c }}u, with_bias(sum{{ r }}_{{ j }}[{{ c }}], quad * 4u + {{ 4 * j + c }}u));
        {% endfor %}
      }
      {% endfor %}
      {% endif %}
    }
  }
  {% endfor %}
}
