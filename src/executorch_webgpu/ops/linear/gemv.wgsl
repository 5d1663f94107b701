// out = a x transpose(b) + bias. One workgroup computes four neighbouring columns of one row; its lanes read a row
// of b side by side.
{% include "linear/row_interface.wgsl" %}

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
  let start = min(vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u)) * params.units;

  var sum = vec4<f32>();
  for (var i = lane; i < params.units; i += wg_size) {
    let x = a[row * params.units + i];
    {% if element == "f32" %}
    sum += x * vec4<f32>(b[start[0] + i], b[start[1] + i], b[start[2] + i], b[start[3] + i]);
    {% else %}
    sum += vec4<f32>(
      dot(x, b[start[0] + i]), dot(x, b[start[1] + i]), dot(x, b[start[2] + i]), dot(x, b[start[3] + i])
    );
    {% endif %}
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
    out[row * params.n + column + lane] = partial[0][lane]
      {{- " + bias[(column + lane) * params.bias_column]" if bias }};
  }
}
