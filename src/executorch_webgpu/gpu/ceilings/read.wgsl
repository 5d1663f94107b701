{#
Reads a buffer once and does nothing else: the ceiling that kernels are held against.

Neighbouring invocations read neighbouring vec4s, as GPUs like it, or each reads a run of its own: what a CPU does best, whose
cores each go through memory in order.
#}
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;

override loads: u32;  // of one invocation
override runs: bool = false;  // of its own
override wg_size: u32 = 64;

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let first = select(gid.x, gid.x * loads, runs);
  let stride = select(groups.x * wg_size, 1u, runs);
  var sum = vec4<u32>();
  for (var i = 0u; i < loads; i++) {
    sum ^= x[first + i * stride];
  }
  out[gid.x] = sum;
}
