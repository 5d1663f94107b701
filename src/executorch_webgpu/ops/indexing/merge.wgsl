{#
A pass of a stable merge sort of sources by address: every two neighbouring runs become one. An invocation moves a source.

Inputs:
  first = True | False: whether runs are single addresses, which are still without their numbers
#}
{% if first %}
@group(0) @binding(0) var<storage, read> before: array<i32>;
{% else %}
@group(0) @binding(0) var<storage, read> before: array<vec2<u32>>;  // address and number of a source
{% endif %}
@group(0) @binding(1) var<storage, read_write> after: array<vec2<u32>>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  n: u32,
  run: u32,
  size: i32,
  wraps: u32,
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "indexing/index.wgsl" %}

fn source(i: u32) -> vec2<u32> {
{% if first %}
  return vec2<u32>(u32(in_range(before[i], params.size, params.wraps)), i);
{% else %}
  return before[i];
{% endif %}
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let mine = source(i);
  let run = i / params.run;
  let start = (run ^ 1u) * params.run;  // of the other one
  var low = min(start, params.n);
  var high = min(start + params.run, params.n);
  let base = low;
  while (low < high) {  // how many sources of the other run come before this one
    let middle = (low + high) / 2u;
    let address = source(middle).x;
    if (address < mine.x || (address == mine.x && (run & 1u) == 1u)) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  after[(run & ~1u) * params.run + (i - run * params.run) + (low - base)] = mine;
}
