// One workgroup computes four neighbouring columns of one row. Its lanes read each column's weights side by side.
{% include "linear_quantized/call.wgsl" %}
{% from "linear_quantized/block.wgsl" import block_codes, load_block with context %}

override wg_size: u32 = 64;  // a power of two

var<workgroup> partial: array<vec4<f32>, wg_size>;

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let row = tile / params.column_tiles;
  if (row >= params.m) {
    return;
  }
  let column = tile % params.column_tiles * 4u;
  // Columns past the edge repeat the last one and are not stored.
  let start = min(vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u)) * params.row_stride;

  var sum = vec4<f32>();
  let blocks = (params.k + {{ step - 1 }}u) / {{ step }}u;
  for (var block = lane; block < blocks; block += wg_size) {
    let k = block * {{ step }}u;
    {% for c in range(4) %}
    {{ load_block("packed%d" % c, "start[%d]" % c) | indent(4) }}
    {% endfor %}
    var dots = vec4<f32>();
    {% if mins %}
    var total = vec4<f32>();
    {% endif %}
    {% for q in range(step // 4) %}
    {
      let xs = load_x(row, k + {{ 4 * q }}u);
      {% for c in range(4) %}
      dots[{{ c }}] += dot({{ block_codes("packed%d" % c, q) }}, xs);
      {% endfor %}
      {% if mins %}
      total += xs;
      {% endif %}
    }
    {% endfor %}
    let packed_scales = scales[k / params.group_size * params.scale_quads + column / 4u];
    sum += four_scales(packed_scales) * dots{{ " + four_mins(packed_scales) * dot(total, vec4<f32>(1.0))" if mins }};
  }

  partial[lane] = sum;
  workgroupBarrier();
  for (var half = wg_size / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  if (lane < 4u && column + lane < params.n) {
    out[row * params.n + column + lane] = partial[0][lane]{{ " + bias[column + lane]" if bias }};
  }
}
