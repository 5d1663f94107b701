{#
One reduction of every row. `lanes` invocations of a workgroup share a row; it holds wg_size / lanes rows.

Inputs:
  kind = "sum" | "max" | "min" | "argmax" | "argmin": of float32, times a scale if it is a sum; of equals, the first index
#}
{% set least = kind in ("min", "argmin") %}
{% set index = kind in ("argmax", "argmin") %}
{% if kind == "sum" %}
alias Element = f32;
alias Result = f32;
var<workgroup> partials: array<f32, wg_size>;
{% elif index %}
alias Element = u32;  // the bits of a float
alias Result = i32;
var<workgroup> partials: array<vec2<u32>, wg_size>;  // ranks and indices
{% else %}
alias Element = u32;
alias Result = u32;
var<workgroup> partials: array<u32, wg_size>;  // ranks
{% endif %}
@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> out: array<Result>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  rows: u32,
  length: u32,  // elements of a row
  scale: f32,  // of a sum
  row_rank: u32,
  element_rank: u32,
  row_dims: array<vec4<u32>, 2>,  // innermost first, as all of these
  row_strides: array<vec4<u32>, 2>,
  element_dims: array<vec4<u32>, 2>,
  element_strides: array<vec4<u32>, 2>,
}

override wg_size: u32 = 256;
override lanes: u32 = 32;  // a power of two that divides wg_size

{% for space in ("row", "element") %}

// Where it begins, in elements of x.
fn {{ space }}_offset(i: u32) -> u32 {
  var rest = i;
  var at = 0u;
  for (var d = 0u; d < params.{{ space }}_rank; d++) {
    let size = params.{{ space }}_dims[d / 4u][d % 4u];
    let outer = rest / size;
    at += (rest - outer * size) * params.{{ space }}_strides[d / 4u][d % 4u];
    rest = outer;
  }
  return at;
}
{% endfor %}

// ---- values: of extremes the rank, of x or, for the least, of -x; 0 is below all ----
{% if kind == "sum" %}
fn value_of(element: f32, i: u32) -> f32 {
  return element;
}

fn combine(a: f32, b: f32) -> f32 {
  return a + b;
}

fn result_of(value: f32) -> f32 {
  return value * params.scale;
}
{% else %}
{% include "wgsl/float_order.wgsl" %}

const SIGN = {{ "0x80000000u" if least else "0u" }};  // what turns x over

{% if index %}
fn value_of(bits: u32, i: u32) -> vec2<u32> {
  return vec2<u32>(rank_of(bits ^ SIGN), i);
}

fn combine(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
}

fn result_of(value: vec2<u32>) -> i32 {
  return i32(value.y);
}
{% else %}
fn value_of(bits: u32, i: u32) -> u32 {
  return rank_of(bits ^ SIGN);
}

fn combine(a: u32, b: u32) -> u32 {
  return max(a, b);
}

fn result_of(rank: u32) -> u32 {
  let bits = bits_of(rank);
  return select(bits ^ SIGN, bits, bits == 0u);
}
{% endif %}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * (wg_size / lanes) + local / lanes;
  let lane = local % lanes;
  {% if index %}
  var result = vec2<u32>(0u, 0xffffffffu);
  {% elif kind == "sum" %}
  var result = 0.0;
  {% else %}
  var result = 0u;
  {% endif %}
  if (row < params.rows) {
    let start = row_offset(row);
    for (var i = lane; i < params.length; i += lanes) {
      result = combine(result, value_of(x[start + element_offset(i)], i));
    }
  }
  partials[local] = result;
  workgroupBarrier();
  for (var half = lanes / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partials[local] = combine(partials[local], partials[local + half]);
    }
    workgroupBarrier();
  }
  if (lane == 0u && row < params.rows) {
    out[row] = result_of(partials[local]);
  }
}
