{#
out = values where a mask holds, x elsewhere; an invocation makes a word.

Inputs:
  lanes = 1 | 2 | 4: elements of a word
  number = True | False: whether one number of the call stands for all values
#}
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> mask: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;
{% if not number %}
@group(0) @binding(4) var<storage, read> values: array<u32>;
{% endif %}

struct Params {
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  x_strides: array<vec4<u32>, 2>,  // 0 where it is repeated
  mask_strides: array<vec4<u32>, 2>,
  value_strides: array<vec4<u32>, 2>,
  rank: u32,
  n: u32,
  number: u32,  // as it lies in a word
}

override wg_size: u32 = 64;

const LANES = {{ lanes }}u;
const BITS = 32u / LANES;  // of an element
{% include "wgsl/linear_index.wgsl" %}

fn element(i: u32) -> u32 {
  var rest = i;
  var at = vec3<u32>(0u);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    at += (rest - outer * size) * vec3<u32>(
      params.x_strides[d / 4u][d % 4u], params.mask_strides[d / 4u][d % 4u], params.value_strides[d / 4u][d % 4u]);
    rest = outer;
  }
  if (mask[at.y] == 0u) {
    return extractBits(x[at.x / LANES], at.x % LANES * BITS, BITS);
  }
{% if number %}
  return params.number;
{% else %}
  return extractBits(values[at.z / LANES], at.z % LANES * BITS, BITS);
{% endif %}
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * LANES >= params.n) {
    return;
  }
  var word = 0u;
  for (var lane = 0u; lane < LANES; lane++) {
    word = insertBits(word, element(min(i * LANES + lane, params.n - 1u)), lane * BITS, BITS);
  }
  out[i] = word;
}
