{#
out = an expression of an element of each of several tensors, which may repeat; four elements of out per invocation.

Inputs:
  expression = "a + p * b" | "power(a, b)": WGSL in V, the vec4 type, and the vec4s a, b, c and p, which is a scalar
  compute = "f32" | "i32" | "u32": the scalar type to compute in; "u32" are elements as they are stored
  places = "equal" | "quads" | "any": elements of one place meet; or views of out, in whole aligned quads; or any views
  dtypes = ("float32", "float32") | ("bool", "float16", "float16"): of a, b and c
  out = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "bool" | "uint8" | "int8": dtype
#}
{% set operands = ("a", "b", "c")[:dtypes | length] %}
{% for dtype in dtypes %}
@group(0) @binding({{ loop.index0 }})
var<storage, read> {{ operands[loop.index0] }}_data: array<{{ dtype }}_{{ "word" if places == "any" else "quad" }}>;
{% endfor %}
@group(0) @binding({{ dtypes | length }}) var<storage, read_write> out: array<{{ out }}_quad>;
@group(0) @binding({{ dtypes | length + 1 }}) var<uniform> params: Params;

struct Params {
  n: u32,
  p: {{ compute }},
{% if places != "equal" %}
  rank: u32,
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  bases: vec4<u32>,  // of each operand, where its first element is
{% for name in operands %}
  {{ name }}_strides: array<vec4<u32>, 2>,  // 0 where it is repeated
{% endfor %}
{% endif %}
}

override wg_size: u32 = 64;
alias V = vec4<{{ compute }}>;
{% include "wgsl/linear_index.wgsl" %}
{% include "elementwise/result.wgsl" %}
{% if places != "equal" %}

struct Place {
  at: vec{{ dtypes | length }}<u32>,  // which elements meet
  column: u32,  // along the innermost dimension
}

// Of element i of out; past the end, of the last one.
fn place_of(i: u32) -> Place {
  var rest = min(i, params.n - 1u);
  var found = Place(params.bases.{{ "xyz"[:dtypes | length] }}, rest % params.dims[0].x);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let index = rest - outer * size;
{% for name in operands %}
    found.at.{{ "xyz"[loop.index0] }} += index * params.{{ name }}_strides[d / 4u][d % 4u];
{% endfor %}
    rest = outer;
  }
  return found;
}
{% endif %}
{% if places == "any" %}

fn following(place: Place, i: u32) -> Place {
  if (place.column + 1u >= params.dims[0].x || i >= params.n) {
    return place_of(i);
  }
  var next = place;
  next.column += 1u;
{% for name in operands %}
  next.at.{{ "xyz"[loop.index0] }} += params.{{ name }}_strides[0].x;
{% endfor %}
  return next;
}
{% endif %}
{% for dtype in dtypes %}
{% set name = operands[loop.index0] %}
{% if places == "any" %}

fn {{ name }}_at(i: u32) -> {{ compute }} {
{% if compute == "u32" %}
  return bits_{{ dtype }}({{ name }}_data[i / {{ dtype }}_per_word], i);
{% else %}
  return {{ compute }}(element_{{ dtype }}({{ name }}_data[i / {{ dtype }}_per_word], i));
{% endif %}
}
{% else %}

fn {{ name }}_quad(i: u32) -> V {
{% if compute == "u32" %}
  return split_{{ dtype }}({{ name }}_data[i]);
{% else %}
  return V(unpack_{{ dtype }}({{ name }}_data[i]));
{% endif %}
}
{% endif %}
{% endfor %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
{% if places == "any" %}
  let place0 = place_of(i * 4u);
  let place1 = following(place0, i * 4u + 1u);
  let place2 = following(place1, i * 4u + 2u);
  let place3 = following(place2, i * 4u + 3u);
{% elif places == "quads" %}
  let at = place_of(i * 4u).at;
{% endif %}
{% for name in operands %}
{% set part = "xyz"[loop.index0] %}
{% if places == "any" %}
  let {{ name }} = V({{ name }}_at(place0.at.{{ part }}), {{ name }}_at(place1.at.{{ part }}),
    {{ name }}_at(place2.at.{{ part }}), {{ name }}_at(place3.at.{{ part }}));
{% elif places == "quads" %}
  var {{ name }} = {{ name }}_quad(at.{{ part }} / 4u);
  if (params.{{ name }}_strides[0].x == 0u) {
    {{ name }} = V({{ name }}[at.{{ part }} % 4u]);
  }
{% else %}
  let {{ name }} = {{ name }}_quad(i);
{% endif %}
{% endfor %}
  let p = V(params.p);
  out[i] = packed(V({{ expression }}));
}
