{% from "elementwise/packing.wgsl" import element, pack, quad_type, word_type %}
// out = a where condition holds, else b; four elements of out per invocation.
@group(0) @binding(0) var<storage, read> condition: array<u32>;
@group(0) @binding(1) var<storage, read> left: array<{{ word_type(a) }}>;
@group(0) @binding(2) var<storage, read> right: array<{{ word_type(b) }}>;
@group(0) @binding(3) var<storage, read_write> out: array<{{ quad_type(out) }}>;
@group(0) @binding(4) var<uniform> params: Params;

struct Params {
  n: u32,
  rank: u32,
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  condition_strides: array<vec4<u32>, 2>,  // 0 where it is repeated
  a_strides: array<vec4<u32>, 2>,
  b_strides: array<vec4<u32>, 2>,
}

override wg_size: u32 = 64;
alias V = vec4<{{ compute }}>;
{% include "wgsl/linear_index.wgsl" %}
{% include "elementwise/functions.wgsl" %}

// Which elements of condition, a and b meet in element i of out; past the end, those of the last one.
fn operands(i: u32) -> vec3<u32> {
  var rest = min(i, params.n - 1u);
  var at = vec3<u32>(0u);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    at += (rest - outer * size) * vec3<u32>(
      params.condition_strides[d / 4u][d % 4u], params.a_strides[d / 4u][d % 4u], params.b_strides[d / 4u][d % 4u]);
    rest = outer;
  }
  return at;
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
{% for k in range(4) %}
  let at{{ k }} = operands(i * 4u + {{ k }}u);
{% endfor %}
{% for name, array, side, dtype in (("a", "left", "y", a), ("b", "right", "z", b)) %}
  let {{ name }} = V(vec4<{{ "f32" if dtype == "float16" else "i32" if dtype == "int8" else word_type(dtype) }}>(
{%- for k in range(4) %}{{ element(dtype, array, "at%d.%s" % (k, side)) }}{{ ", " if k < 3 }}{% endfor %}));
{% endfor %}
  let holds = vec4<u32>(condition[at0.x], condition[at1.x], condition[at2.x], condition[at3.x]) != vec4<u32>(0u);
  let result = select(b, a, holds);
  out[i] = {{ pack(out, "result") }};
}
