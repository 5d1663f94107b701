{#
Elementwise operators of floats, one after the other; four elements per invocation.

Inputs:
  dtype = "float32" | "float16" | "bfloat16": of inputs and output, to which every result is rounded
  single = (False,) | (True, False): of each input, whether it has one element, which goes with all of the others
  steps = (("x * p", (("x", 0, ""),), (("p", "x"),)),): of each operator the expression, as unary and binary take it, its
    operands with their places among the inputs and the results before, and the component of params.none that hides a value
    which has been used before, and its scalars with their components of params.scalars
#}
{% for one in single %}
@group(0) @binding({{ loop.index }}) var<storage, read> input{{ loop.index0 }}: array<{{ dtype }}_{{ "word" if one else "quad" }}>;
{% endfor %}
@group(0) @binding(0) var<storage, read_write> out: array<{{ dtype }}_quad>;
@group(0) @binding({{ 1 + single | length }}) var<uniform> params: Params;

struct Params {
  quads: u32,
  none: vec4<u32>,  // zeros, which a compiler does not know: it would make 1 of a value over itself, and of a NaN, too
  scalars: array<vec4<f32>, {{ steps | length }}>,  // of each step up to four
}

override wg_size: u32 = 64;
alias V = vec4<f32>;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% if "sine" in steps | string or "tangent" in steps | string %}
{% include "elementwise/trigonometric.wgsl" %}
{% else %}
{% include "elementwise/exponential.wgsl" %}
{% endif %}
{% include "elementwise/quotients.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.quads) {
    return;
  }
{% for one in single %}
{% if one %}
  let value{{ loop.index0 }} = V(element_{{ dtype }}(input{{ loop.index0 }}[0], 0u));
{% else %}
  let value{{ loop.index0 }} = unpack_{{ dtype }}(input{{ loop.index0 }}[i]);
{% endif %}
{% endfor %}
{% for expression, operands, scalars in steps %}
  var value{{ loop.index0 + single | length }}: V;
  {
{% for name, place, again in operands %}
{% if again %}
    let {{ name }} = bitcast<V>(bitcast<vec4<u32>>(value{{ place }}) | vec4<u32>(params.none.{{ again }}));
{% else %}
    let {{ name }} = value{{ place }};
{% endif %}
{% endfor %}
{% set index = loop.index0 %}
{% for name, component in scalars %}
    let {{ name }} = V(params.scalars[{{ index }}].{{ component }});
{% endfor %}
{% if dtype == "float32" %}
    value{{ index + single | length }} = V({{ expression }});
{% else %}
    value{{ index + single | length }} = unpack_{{ dtype }}(pack_{{ dtype }}(V({{ expression }})));
{% endif %}
  }
{% endfor %}
  out[i] = pack_{{ dtype }}(value{{ single | length + steps | length - 1 }});
}
