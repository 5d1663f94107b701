{#
Which element of a tensor several indices together name: addresses[i] = a sum of index · step, and of strides of i.

Inputs:
  count = 1 | 2 | 3 | 4: index tensors
  more = False | True: whether the sum is added to what addresses holds
#}
@group(0) @binding(0) var<storage, read_write> addresses: array<i32>;
@group(0) @binding(1) var<uniform> params: Params;
{% for k in range(count) %}
@group(0) @binding({{ 2 + k }}) var<storage, read> index{{ k }}: array<i32>;
{% endfor %}

struct Params {
  dims: array<vec4<u32>, 2>,  // innermost first
  base_strides: array<vec4<u32>, 2>,
{% for k in range(count) %}
  strides{{ k }}: array<vec4<u32>, 2>,
{% endfor %}
  sizes: vec4<i32>,
  steps: vec4<i32>,
  rank: u32,
  n: u32,
  wraps: u32,
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "indexing/index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  var rest = i;
  var base = 0;
{% for k in range(count) %}
  var at{{ k }} = 0u;
{% endfor %}
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let coordinate = rest - outer * size;
    base += i32(coordinate * params.base_strides[d / 4u][d % 4u]);
{% for k in range(count) %}
    at{{ k }} += coordinate * params.strides{{ k }}[d / 4u][d % 4u];
{% endfor %}
    rest = outer;
  }
  var sum = {{ "addresses[i]" if more else "base" }};
{% for k in range(count) %}
  sum += in_range(index{{ k }}[at{{ k }}], params.sizes[{{ k }}], params.wraps) * params.steps[{{ k }}];
{% endfor %}
  addresses[i] = sum;
}
