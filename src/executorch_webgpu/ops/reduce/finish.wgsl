{#
Results of partials [n], four per invocation, in dtypes of any width.

Inputs:
  kind = "largest" | "sum": see partial.wgsl
  compute = "f32" | "i32": the type of the numbers that were reduced
  finish = "v" | "v * p": a result of the reduced number v, with a number p
  results = "first" | "both": of two results, such as the extreme and its index, which are wanted
  out = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8": dtype of the first result
  second = "int32" | "float32" | "float16": dtype of the second one
#}
{% set number = "f32" if "float" in out else "u32" if out == "bool" else "i32" %}
@group(0) @binding(0) var<storage, read> x: array<Partial>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ out }}_quad>;
{% if results == "both" %}
@group(0) @binding(2) var<storage, read_write> second: array<{{ second }}_quad>;
{% endif %}
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  n: u32,
  p: f32,
  scale: f32,  // the p of `finish`
}

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}
{% include "reduce/partial.wgsl" %}
{% include "wgsl/elements.wgsl" %}

fn finished(partial: Partial) -> {{ number }} {
  let v = result_of(partial, params.p);
  let p = params.scale;
  return {{ number }}({{ finish }});
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  let last = params.n - 1u;
  let at = min(vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
  {% for k in "xyzw" %}
  let {{ k }}4 = x[at.{{ k }}];
  {% endfor %}
  out[quad] = pack_{{ out }}({{ out }}_numbers(finished(x4), finished(y4), finished(z4), finished(w4)));
  {% if results == "both" %}
  second[quad] = pack_{{ second }}({{ second }}_numbers(second_of(x4), second_of(y4), second_of(z4), second_of(w4)));
  {% endif %}
}
