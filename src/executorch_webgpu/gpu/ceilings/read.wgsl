{#
Reads a buffer once and does nothing else: the ceiling that kernels are held against.
#}
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;

override loads: u32;  // of one invocation
override wg_size: u32 = 64;

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  var sum = vec4<u32>();
  for (var i = 0u; i < loads; i++) {
    sum ^= x[gid.x + i * groups.x * wg_size];
  }
  out[gid.x] = sum;
}
