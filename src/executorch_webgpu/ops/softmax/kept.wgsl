{#
Softmax of x [outer, length, inner] along its middle dimension, of rows that a workgroup keeps: memory is read once.

`lanes` invocations share a row, which is a pair of an outer and an inner index, and keep units of it, one or four elements.

Inputs:
  result = "softmax" | "log" | "safe": see result.wgsl
  kept = 4 | 16 | 64: units that an invocation keeps, at most
  width = 4 | 1: elements of a unit; four lie side by side, inner is 1 then
  across = False | True: whether neighbours own neighbouring rows; else neighbouring units of a row
  x = "float32" | "float16" | "int32": dtype
  out = "float32": dtype; of any width where a unit has four elements
#}
{% set kind = "lse" %}
{% set compute = "f32" %}
{% set part = "quad" if width == 4 else "word" %}
@group(0) @binding(0) var<storage, read> x: array<{{ x }}_{{ part }}>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ out }}_{{ part }}>;

struct Params {
  rows: u32,  // outer * inner
  length: u32,  // in units
  inner: u32,
  lanes: u32,  // a power of two that divides wg_size
}
@group(0) @binding(2) var<uniform> params: Params;

override wg_size: u32 = 256;

var<workgroup> partials: array<vec2<f32>, wg_size>;

alias Unit = {{ "vec4<f32>" if width == 4 else "f32" }};

{% include "reduce/partial.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "softmax/result.wgsl" %}

fn loaded(at: u32) -> Unit {
  {% if width == 4 %}
  return Unit(unpack_{{ x }}(x[at]));
  {% else %}
  return Unit(element_{{ x }}(x[at / {{ x }}_per_word], at));
  {% endif %}
}

// What unit i of a row comes to.
fn of_unit(i: u32, v: Unit) -> Partial {
  {% if width == 4 %}
  let left = combine(partial_of(v.x, 0u), partial_of(v.y, 0u));
  let found = combine(left, combine(partial_of(v.z, 0u), partial_of(v.w, 0u)));
  {% else %}
  let found = partial_of(v, 0u);
  {% endif %}
  return select(nothing(), found, i < params.length);
}

fn store(i: u32, start: u32, v: Unit, row: vec2<f32>) {
  if (i >= params.length) {
    return;
  }
  {% if width == 4 %}
  let results = Unit(softmax_of(v.x, row), softmax_of(v.y, row), softmax_of(v.z, row), softmax_of(v.w, row));
  out[start + i] = pack_{{ out }}(results);
  {% else %}
  out[start + i * params.inner] = softmax_of(v, row);
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let rows = wg_size / params.lanes;
  let block = (group.x + group.y * groups.x) * rows;
  {% if across %}
  let row = block + local % rows;
  let lane = local / rows;
  let stride = rows;
  {% else %}
  let row = block + local / params.lanes;
  let lane = local % params.lanes;
  let stride = 1u;
  {% endif %}
  let known = min(row, params.rows - 1u);
  let start = known / params.inner * params.length * params.inner + known % params.inner;
  {% for k in range(kept) %}
  let v{{ k }} = loaded(start + min(lane + {{ k }}u * params.lanes, params.length - 1u) * params.inner);
  {% endfor %}
  var result = nothing();
  {% for k in range(kept) %}
  result = combine(result, of_unit(lane + {{ k }}u * params.lanes, v{{ k }}));
  {% endfor %}
  partials[local] = result;
  workgroupBarrier();
  for (var half = params.lanes / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partials[local] = combine(partials[local], partials[local + half * stride]);
    }
    workgroupBarrier();
  }
  if (row >= params.rows) {
    return;
  }
  let whole = partials[local - lane * stride];
  {% for k in range(kept) %}
  store(lane + {{ k }}u * params.lanes, start, v{{ k }}, whole);
  {% endfor %}
}
