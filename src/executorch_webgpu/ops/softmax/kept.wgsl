{#
Softmax of x [outer, length, inner] along its middle dimension, of rows that a workgroup keeps: memory is read once.

`lanes` invocations share a row, which is a pair of an outer and an inner index, and keep units of it, one or four elements.
The largest element is known before any exponential, so that each element has one.

Inputs:
  result = "softmax" | "log" | "safe": see result.wgsl, which has the same for what is not kept
  kept = 4 | 16 | 64: units that an invocation keeps, at most
  width = 4 | 1: elements of a unit; four lie side by side: of a row, where inner is 1 then, or of four rows, across
  across = False | True: whether neighbours own neighbouring rows; else neighbouring units of a row
  x = "float32" | "float16" | "int32": dtype
  out = "float32": dtype; of any width where a unit has four elements
#}
{% set part = "quad" if width == 4 else "word" %}
{% set wide = across and width == 4 %}
@group(0) @binding(0) var<storage, read> x: array<{{ x }}_{{ part }}>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ out }}_{{ part }}>;

struct Params {
  rows: u32,  // outer * inner; if wide, quads of them
  length: u32,  // in units
  inner: u32,  // if wide, quads
  lanes: u32,  // a power of two that divides wg_size
}
@group(0) @binding(2) var<uniform> params: Params;

override wg_size: u32 = 256;

alias Unit = {{ "vec4<f32>" if width == 4 else "f32" }};
alias Row = {{ "vec4<f32>" if wide else "f32" }};  // a number of a row, or of each of four

var<workgroup> partials: array<{{ "vec4<f32>" if wide else "f32" }}, wg_size>;

{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/elements.wgsl" %}

fn loaded(at: u32) -> Unit {
  {% if width == 4 %}
  return Unit(unpack_{{ x }}(x[at]));
  {% else %}
  return Unit(element_{{ x }}(x[at / {{ x }}_per_word], at));
  {% endif %}
}

// As far as they are finite: an infinite one makes the sum infinite, or adds nothing to it.
fn finite(v: Unit) -> Unit {
  return clamp(v, Unit(LOWEST), Unit(-LOWEST));
}

fn store(i: u32, start: u32, results: Unit) {
  if (i >= params.length) {
    return;
  }
  {% if width == 4 %}
  out[start + i{{ " * params.inner" if across }}] = pack_{{ out }}(results);
  {% else %}
  out[start + i * params.inner] = results;
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
  // Units past the end are what the last one is, which changes no maximum.
  var most = finite(v0);
  {% for k in range(1, kept) %}
  most = max(most, finite(v{{ k }}));
  {% endfor %}
  partials[local] = {{ "max(max(most.x, most.y), max(most.z, most.w))" if width == 4 and not across else "most" }};
  workgroupBarrier();
  for (var half = params.lanes / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partials[local] = max(partials[local], partials[local + half * stride]);
    }
    workgroupBarrier();
  }
  let largest = partials[local - lane * stride];
  workgroupBarrier();

  var sums = Unit(0.0);
  {% for k in range(kept) %}
  let e{{ k }} = exp(v{{ k }} - largest);
  sums += select(Unit(0.0), e{{ k }}, lane + {{ k }}u * params.lanes < params.length);
  {% endfor %}
  partials[local] = {{ "(sums.x + sums.y) + (sums.z + sums.w)" if width == 4 and not across else "sums" }};
  workgroupBarrier();
  for (var half = params.lanes / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partials[local] += partials[local + half * stride];
    }
    workgroupBarrier();
  }
  if (row >= params.rows) {
    return;
  }
  let found = partials[local - lane * stride];
  // Infinite where an element is, 0 where all are -inf: all of the row is NaN then.
  {% set bits = "vec4<u32>" if wide else "u32" %}
  let bits = bitcast<{{ bits }}>(found);
  let odd = (bits == {{ bits }}(0x7f800000u)){{ " | (found == Row(0.0))" if result != "safe" }};
  let sum = bitcast<Row>(select(bits, {{ bits }}(0x7fc00000u), odd));
  {% if result == "log" %}
  let less = log(sum);
  {% elif result == "safe" %}
  let scale = select(1.0 / sum, Row(0.0), sum == Row(0.0));
  {% else %}
  let scale = 1.0 / sum;
  {% endif %}
  {% for k in range(kept) %}
  {% set of_unit = "v%d - largest - less" if result == "log" else "e%d * scale" %}
  store(lane + {{ k }}u * params.lanes, start, {{ of_unit % k }});
  {% endfor %}
}
