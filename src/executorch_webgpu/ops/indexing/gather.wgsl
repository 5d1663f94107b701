{#
out[i] = x at strides of i, and further at what index tensors hold at strides of their own; an invocation makes a unit.

Inputs:
  unit = "u32" | "vec4<u32>": the WGSL type of what is moved
  lanes = 1 | 2 | 4: elements that are packed in a unit; if several, an invocation gathers a word
  count = 1 | 2 | 4: index tensors
#}
@group(0) @binding(0) var<storage, read> x: array<{{ unit }}>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ unit }}>;
@group(0) @binding(2) var<uniform> params: Params;
{% for k in range(count) %}
@group(0) @binding({{ 3 + k }}) var<storage, read> index{{ k }}: array<i32>;
{% endfor %}

struct Params {
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  x_strides: array<vec4<u32>, 2>,
{% for k in range(count) %}
  strides{{ k }}: array<vec4<u32>, 2>,  // of an index tensor
{% endfor %}
  sizes: vec4<i32>,  // how many elements of x each index chooses from
  steps: vec4<i32>,  // and how far apart these are
  rank: u32,
  n: u32,
  wraps: u32,  // whether negative indices count from the end
}

override wg_size: u32 = 64;

const LANES = {{ lanes }}u;
const BITS = 32u / LANES;  // of an element
{% include "wgsl/linear_index.wgsl" %}
{% include "indexing/index.wgsl" %}

// Where element i of out lies in x.
fn place(i: u32) -> u32 {
  var rest = i;
  var at = 0u;
{% for k in range(count) %}
  var at{{ k }} = 0u;
{% endfor %}
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let coordinate = rest - outer * size;
    at += coordinate * params.x_strides[d / 4u][d % 4u];
{% for k in range(count) %}
    at{{ k }} += coordinate * params.strides{{ k }}[d / 4u][d % 4u];
{% endfor %}
    rest = outer;
  }
{% for k in range(count) %}
  at += u32(in_range(index{{ k }}[at{{ k }}], params.sizes[{{ k }}], params.wraps) * params.steps[{{ k }}]);
{% endfor %}
  return at;
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * LANES >= params.n) {
    return;
  }
{% if lanes == 1 %}
  out[i] = x[place(i)];
{% else %}
  var word = 0u;
  for (var lane = 0u; lane < LANES; lane++) {
    let element = place(min(i * LANES + lane, params.n - 1u));
    let bits = extractBits(x[element / LANES], element % LANES * BITS, BITS);
    word = insertBits(word, bits, lane * BITS, BITS);
  }
  out[i] = word;
{% endif %}
}
