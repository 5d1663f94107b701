{#
Chains of multiply-adds in registers: the ceiling of kernels that multiply float32 without matrix units.

Inputs:
  chains = 8: sums that do not wait for each other
  unroll = 8: multiply-adds of each sum in a turn of the loop
#}
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;

override loops: u32;
override wg_size: u32 = 64;

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
  let factor = x[0];
  let summand = x[1];
{% for i in range(chains) %}
  var sum{{ i }} = vec4<f32>(f32(gid.x + {{ i }}u));  // chains that began alike would be computed once
{% endfor %}
  for (var i = 0u; i < loops; i++) {
{% for _ in range(unroll) %}
{% for i in range(chains) %}
    sum{{ i }} = fma(sum{{ i }}, factor, summand);
{% endfor %}
{% endfor %}
  }
  out[gid.x] = {% for i in range(chains) %}sum{{ i }}{{ " + " if not loop.last }}{% endfor %};
}
