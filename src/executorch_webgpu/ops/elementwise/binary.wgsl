{#
out = an expression of an element of a and one of b, four elements of out per invocation.

Inputs:
  expression = "a + alpha * b" | "power(a, b)": WGSL in V, the vec4 type, and the vec4s a, b and alpha, which is a scalar
  compute = "f32" | "i32": the scalar type to compute in
  broadcast = False | True: elements of a or b repeat
  a = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8": dtype
  b = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8": dtype
  out = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8": dtype
#}
{% if broadcast %}
@group(0) @binding(0) var<storage, read> left: array<{{ a }}_word>;
@group(0) @binding(1) var<storage, read> right: array<{{ b }}_word>;
{% else %}
@group(0) @binding(0) var<storage, read> left: array<{{ a }}_quad>;
@group(0) @binding(1) var<storage, read> right: array<{{ b }}_quad>;
{% endif %}
@group(0) @binding(2) var<storage, read_write> out: array<{{ out }}_quad>;
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
{% include "wgsl/elements.wgsl" %}
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

fn a_at(i: u32) -> {{ compute }} {
  return {{ compute }}(element_{{ a }}(left[i / {{ a }}_per_word], i));
}

fn b_at(i: u32) -> {{ compute }} {
  return {{ compute }}(element_{{ b }}(right[i / {{ b }}_per_word], i));
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
  {% if broadcast %}
  let at0 = operands(i * 4u);
  let at1 = operands(i * 4u + 1u);
  let at2 = operands(i * 4u + 2u);
  let at3 = operands(i * 4u + 3u);
  let a = V(a_at(at0.x), a_at(at1.x), a_at(at2.x), a_at(at3.x));
  let b = V(b_at(at0.y), b_at(at1.y), b_at(at2.y), b_at(at3.y));
  {% else %}
  let a = V(unpack_{{ a }}(left[i]));
  let b = V(unpack_{{ b }}(right[i]));
  {% endif %}
  let alpha = V(params.alpha);
  out[i] = pack_{{ out }}({{ out }}_numbers({{ expression }}));
}
