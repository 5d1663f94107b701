{#
out = a where condition holds, else b; four elements of out per invocation.

Inputs:
  compute = "f32" | "i32": the scalar type that a and b are converted to
  a = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8": dtype
  b = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8": dtype
  out = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8": dtype
#}
@group(0) @binding(0) var<storage, read> condition: array<u32>;
@group(0) @binding(1) var<storage, read> left: array<{{ a }}_word>;
@group(0) @binding(2) var<storage, read> right: array<{{ b }}_word>;
@group(0) @binding(3) var<storage, read_write> out: array<{{ out }}_quad>;
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
{% include "wgsl/elements.wgsl" %}

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

fn a_at(i: u32) -> {{ compute }} {
  return {{ compute }}(element_{{ a }}(left[i / {{ a }}_per_word], i));
}

fn b_at(i: u32) -> {{ compute }} {
  return {{ compute }}(element_{{ b }}(right[i / {{ b }}_per_word], i));
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
  let at0 = operands(i * 4u);
  let at1 = operands(i * 4u + 1u);
  let at2 = operands(i * 4u + 2u);
  let at3 = operands(i * 4u + 3u);
  let a = V(a_at(at0.y), a_at(at1.y), a_at(at2.y), a_at(at3.y));
  let b = V(b_at(at0.z), b_at(at1.z), b_at(at2.z), b_at(at3.z));
  let holds = vec4<u32>(condition[at0.x], condition[at1.x], condition[at2.x], condition[at3.x]) != vec4<u32>(0u);
  out[i] = pack_{{ out }}({{ out }}_numbers(select(b, a, holds)));
}
