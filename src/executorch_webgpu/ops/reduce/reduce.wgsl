// One reduction, {{ kind }}, of every row. `lanes` invocations of a workgroup share a row; it holds wg_size / lanes rows.
{% set extreme = kind in ("max", "min") %}
{% set value = ("vec2<u32>" if index else "u32") if extreme else "f32" %}
@group(0) @binding(0) var<storage, read> x: array<{{ "u32" if extreme else "f32" }}>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ "i32" if index else "u32" if extreme else "f32" }}>;
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

var<workgroup> partials: array<{{ value }}, wg_size>;
{% for space in ("row", "element") %}

// Where {{ space }} i begins, in elements of x.
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
{% if extreme %}

// Floats are compared by their bits, since drivers turn comparisons into min or max, which drop NaN: a number that is
// larger the more {{ "positive" if kind == "max" else "negative" }} the float is, and largest for NaN. 0 is below all.
fn rank_of(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0xffffffffu;
  }
  if (magnitude == 0u) {
    return 0x80000000u;  // zeros of both signs are equal
  }
  return select({{ "bits | 0x80000000u, ~bits" if kind == "max" else "0x80000000u - bits, bits" }}, bits > 0x80000000u);
}

fn bits_of(rank: u32) -> u32 {
  if (rank == 0xffffffffu) {
    return 0x7fc00000u;
  }
  let positive = rank {{ ">=" if kind == "max" else "<=" }} 0x80000000u;
  return select({{ "~rank, rank & 0x7fffffffu" if kind == "max" else "rank, 0x80000000u - rank" }}, positive);
}
{% endif %}

fn combine(a: {{ value }}, b: {{ value }}) -> {{ value }} {
{% if index %}
  // Of equals, the first.
  return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
{% elif extreme %}
  return max(a, b);
{% else %}
  return a + b;
{% endif %}
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * (wg_size / lanes) + local / lanes;
  let lane = local % lanes;
  var result = {{ "vec2<u32>(0u, 0xffffffffu)" if index else value ~ "(0)" }};
  if (row < params.rows) {
    let start = row_offset(row);
    for (var i = lane; i < params.length; i += lanes) {
      let element = x[start + element_offset(i)];
      result = combine(result, {{ "vec2<u32>(rank_of(element), i)" if index else "rank_of(element)" if extreme else "element" }});
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
    out[row] = {{ "i32(partials[local].y)" if index else "bits_of(partials[local])" if extreme else "partials[local] * params.scale" }};
  }
}
