{#
out = the next element of source where a mask holds, x elsewhere; an invocation makes a word.

Inputs:
  lanes = 1 | 2 | 4: elements of a word
#}
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> mask: array<u32>;
@group(0) @binding(2) var<storage, read> source: array<u32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;  // elements of source before those of a chunk of the mask
@group(0) @binding(4) var<storage, read_write> out: array<u32>;
@group(0) @binding(5) var<uniform> params: Params;

struct Params {
  n: u32,
  chunk: u32,  // elements, a multiple of those in a word
  last: u32,  // of the elements of source
}

override wg_size: u32 = 64;

const LANES = {{ lanes }}u;
const BITS = 32u / LANES;  // of an element
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * LANES >= params.n) {
    return;
  }
  let chunk = i * LANES / params.chunk;
  var next = offsets[chunk];
  for (var j = chunk * params.chunk; j < i * LANES; j++) {
    next += u32(mask[j] != 0u);
  }
  var word = x[i];
  for (var lane = 0u; lane < LANES && i * LANES + lane < params.n; lane++) {
    if (mask[i * LANES + lane] != 0u) {
      let at = min(next, params.last);
      let bits = extractBits(source[at / LANES], at % LANES * BITS, BITS);
      word = insertBits(word, bits, lane * BITS, BITS);
      next++;
    }
  }
  out[i] = word;
}
