{% from "elementwise/packing.wgsl" import element, pack, quad_type, unpack, word_type %}
// out = {{ expression }}, four elements of out per invocation.
{% if broadcast %}
@group(0) @binding(0) var<storage, read> left: array<{{ word_type(a) }}>;
@group(0) @binding(1) var<storage, read> right: array<{{ word_type(b) }}>;
{% else %}
@group(0) @binding(0) var<storage, read> left: array<{{ quad_type(a) }}>;
@group(0) @binding(1) var<storage, read> right: array<{{ quad_type(b) }}>;
{% endif %}
@group(0) @binding(2) var<storage, read_write> out: array<{{ quad_type(out) }}>;
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  n: u32,
  alpha: {{ compute }},
{% if broadcast %}
  rank: u32,
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  a_strides: array<vec4<u32>, 2>,  // 0 where a is repeated
  b_strides: array<vec4<u32>, 2>,
{% endif %}
}

override wg_size: u32 = 64;
alias V = vec4<{{ compute }}>;
{% include "wgsl/linear_index.wgsl" %}
{% include "elementwise/functions.wgsl" %}
{% if broadcast %}

// Which elements of a and b meet in element i of out; past the end, those of the last one.
fn operands(i: u32) -> vec2<u32> {
  var rest = min(i, params.n - 1u);
  var at = vec2<u32>(0u);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    at += (rest - outer * size) * vec2<u32>(params.a_strides[d / 4u][d % 4u], params.b_strides[d / 4u][d % 4u]);
    rest = outer;
  }
  return at;
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
{% if broadcast %}
{% for k in range(4) %}
  let at{{ k }} = operands(i * 4u + {{ k }}u);
{% endfor %}
{% for name, array, side, dtype in (("a", "left", "x", a), ("b", "right", "y", b)) %}
  let {{ name }} = V(vec4<{{ "f32" if dtype == "float16" else "i32" if dtype == "int8" else word_type(dtype) }}>(
{%- for k in range(4) %}{{ element(dtype, array, "at%d.%s" % (k, side)) }}{{ ", " if k < 3 }}{% endfor %}));
{% endfor %}
{% else %}
  let packed_a = left[i];
  let packed_b = right[i];
  let a = V({{ unpack(a, "packed_a") }});
  let b = V({{ unpack(b, "packed_b") }});
{% endif %}
  let alpha = V(params.alpha);
  let result = {{ expression }};
  out[i] = {{ pack(out, "result") }};
}
