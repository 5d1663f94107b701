{#
Writes values into x, in place, where an index tensor says: an invocation a unit of the values.

Of values with the same index, those of the last one are written.

Inputs:
  unit = "vec4<u32>" | "u32": the WGSL type of what is written
#}
@group(0) @binding(0) var<storage, read_write> x: array<{{ unit }}>;
@group(0) @binding(1) var<storage, read> values: array<{{ unit }}>;
@group(0) @binding(2) var<storage, read> index: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  dims: array<vec4<u32>, 2>,  // of the places that are written, innermost first
  x_strides: array<vec4<u32>, 2>,
  value_strides: array<vec4<u32>, 2>,
  index_strides: array<vec4<u32>, 2>,
  rank: u32,
  n: u32,
  count: u32,  // indices
  size: i32,  // how many elements of x they choose from
  step: u32,  // and how far apart these are
  wraps: u32,
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "indexing/index.wgsl" %}

fn chosen(t: u32) -> i32 {
  return in_range(index[t], params.size, params.wraps);
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  var rest = i;
  var at = 0u;
  var value = 0u;
  var t = 0u;
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let coordinate = rest - outer * size;
    at += coordinate * params.x_strides[d / 4u][d % 4u];
    value += coordinate * params.value_strides[d / 4u][d % 4u];
    t += coordinate * params.index_strides[d / 4u][d % 4u];
    rest = outer;
  }
  let mine = chosen(t);
  for (var later = t + 1u; later < params.count; later++) {
    if (chosen(later) == mine) {
      return;
    }
  }
  x[at + u32(mine) * params.step] = values[value];
}
