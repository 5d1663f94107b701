{#
out = x on one side of a diagonal of each matrix, 0 on the other; an invocation makes a word.

Inputs:
  lanes = 1 | 2 | 4: elements of a word
  lower = True | False: which side is kept
#}
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  n: u32,
  rows: u32,
  columns: u32,
  diagonal: i32,
}

override wg_size: u32 = 64;

const LANES = {{ lanes }}u;
const BITS = 32u / LANES;  // of an element
{% include "wgsl/linear_index.wgsl" %}

fn is_kept(i: u32) -> bool {
  let row = i / params.columns;
  let column = i - row * params.columns;
  return i32(column) - i32(row % params.rows) {{ "<=" if lower else ">=" }} params.diagonal;
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * LANES >= params.n) {
    return;
  }
  var word = 0u;
  for (var lane = 0u; lane < LANES; lane++) {
    if (is_kept(i * LANES + lane)) {
      word = insertBits(word, extractBits(x[i], lane * BITS, BITS), lane * BITS, BITS);
    }
  }
  out[i] = word;
}
