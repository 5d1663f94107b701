{#
Operators on int8 tensors with a scale and a zero point each, four elements per invocation.

Inputs:
  op = "move" | "add": an element of a, or the sum of one of a and one of b
  strided = False | True: where elements of a and b lie follows from strides, or they lie as those of out
  relu = False | True: negative numbers become 0
#}
{% set add = op == "add" %}
@group(0) @binding(0) var<storage, read> a: array<u32>;
{% if add %}
@group(0) @binding(1) var<storage, read> b: array<u32>;
{% endif %}
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

struct Params {
  n: u32,
  a_scale: f32,
  a_zero: i32,
{% if add %}
  b_scale: f32,
  b_zero: i32,
  alpha: f32,
{% endif %}
  out_factor: f32,  // the inverse of its scale
  out_zero: i32,
{% if strided %}
  rank: u32,
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  a_strides: array<vec4<u32>, 2>,
{% if add %}
  b_strides: array<vec4<u32>, 2>,
{% endif %}
{% endif %}
}
@group(0) @binding(3) var<uniform> params: Params;

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "q8ta/requantize.wgsl" %}
{% if strided %}

// Which elements of a and b belong to element i of out; past the end, those of the last one.
fn places(i: u32) -> vec2<u32> {
  var rest = min(i, params.n - 1u);
  var at = vec2<u32>(0u);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let coordinate = rest - outer * size;
    at.x += coordinate * params.a_strides[d / 4u][d % 4u];
    {% if add %}
    at.y += coordinate * params.b_strides[d / 4u][d % 4u];
    {% endif %}
    rest = outer;
  }
  return at;
}

fn byte_of(word: u32, place: u32) -> u32 {
  return extractBits(word, place % 4u * 8u, 8u);
}

fn codes_of_a(at: vec4<u32>) -> u32 {
  return pack4xU8(vec4<u32>(
    byte_of(a[at.x / 4u], at.x), byte_of(a[at.y / 4u], at.y), byte_of(a[at.z / 4u], at.z), byte_of(a[at.w / 4u], at.w),
  ));
}
{% if add %}

fn codes_of_b(at: vec4<u32>) -> u32 {
  return pack4xU8(vec4<u32>(
    byte_of(b[at.x / 4u], at.x), byte_of(b[at.y / 4u], at.y), byte_of(b[at.z / 4u], at.z), byte_of(b[at.w / 4u], at.w),
  ));
}
{% endif %}
{% endif %}

fn dequantized(word: u32, zero: i32, scale: f32) -> vec4<f32> {
  return rounded_product(vec4<f32>(unpack4xI8(word) - zero), vec4<f32>(scale));
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
  {% if strided %}
  let p0 = places(i * 4u);
  let p1 = places(i * 4u + 1u);
  let p2 = places(i * 4u + 2u);
  let p3 = places(i * 4u + 3u);
  let a_word = codes_of_a(vec4<u32>(p0.x, p1.x, p2.x, p3.x));
  {% if add %}
  let b_word = codes_of_b(vec4<u32>(p0.y, p1.y, p2.y, p3.y));
  {% endif %}
  {% else %}
  let a_word = a[i];
  {% if add %}
  let b_word = b[i];
  {% endif %}
  {% endif %}
  {% if add %}
  let scaled = rounded_product(dequantized(b_word, params.b_zero, params.b_scale), vec4<f32>(params.alpha));
  let y = dequantized(a_word, params.a_zero, params.a_scale) + scaled;
  {% else %}
  let y = dequantized(a_word, params.a_zero, params.a_scale);
  {% endif %}
  out[i] = pack4xI8(requantized(y, params.out_factor, params.out_zero));
}
