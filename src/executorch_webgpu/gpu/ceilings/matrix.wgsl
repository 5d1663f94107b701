{#
Products of 16x16 tiles in registers, f16 into f32: the ceiling of kernels that multiply with matrix units.

Inputs:
  lefts = 2: tiles on the left
  rights = 4: tiles on the right
  unroll = 4: products of each pair in a turn of the loop
#}
@group(0) @binding(0) var<storage, read> x: array<f16>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

override loops: u32;
override wg_size: u32 = 32;  // one subgroup

@compute @workgroup_size(wg_size)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
{% for i in range(lefts) %}
  let left{{ i }} = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>>(&x, {{ 256 * i }}u, false, 16u);
{% endfor %}
{% for j in range(rights) %}
  let right{{ j }} = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>>(&x, {{ 256 * (lefts + j) }}u, false, 16u);
{% endfor %}
{% for i in range(lefts) %}
{% for j in range(rights) %}
  var sum{{ i }}{{ j }}: subgroup_matrix_result<f32, 16, 16>;
{% endfor %}
{% endfor %}
  for (var n = 0u; n < loops; n++) {
{% for _ in range(unroll) %}
{% for i in range(lefts) %}
{% for j in range(rights) %}
    sum{{ i }}{{ j }} = subgroupMatrixMultiplyAccumulate(left{{ i }}, right{{ j }}, sum{{ i }}{{ j }});
{% endfor %}
{% endfor %}
{% endfor %}
  }
{% for i in range(lefts) %}
{% for j in range(rights) %}
  subgroupMatrixStore(&out, 256u * ({{ lefts * rights }}u * group.x + {{ rights * i + j }}u), sum{{ i }}{{ j }}, false, 16u);
{% endfor %}
{% endfor %}
}
