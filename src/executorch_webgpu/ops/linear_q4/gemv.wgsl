// One workgroup computes four neighbouring columns of one row. Its lanes read each column's weights side by side.
{% include "linear_q4/call.wgsl" %}

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
  let stride = params.row_words / {{ words }}u;
  // Columns past the edge repeat the last one and are not stored.
  let start = min(vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u)) * stride;

  var sum = vec4<f32>();
  let blocks = (params.k + {{ 8 * words - 1 }}u) / {{ 8 * words }}u;
  for (var block = lane; block < blocks; block += wg_size) {
    let k = block * {{ 8 * words }}u;
    {% for c in range(4) %}
    let packed{{ c }} = weights[start[{{ c }}] + block];
    {% endfor %}
    var dots = vec4<f32>();
    {% for w in range(words) %}
    {
      let low = load_x(row, k + {{ 8 * w }}u);
      let high = load_x(row, k + {{ 8 * w + 4 }}u);
      {% for c in range(4) %}
      {% set word = "packed%d" % c ~ ("[%d]" % w if words > 1 else "") %}
      dots[{{ c }}] += dot(low_half({{ word }}), low) + dot(high_half({{ word }}), high);
      {% endfor %}
    }
    {% endfor %}
    sum += scales[k / params.group_size * params.scale_quads + column / 4u] * dots;
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
