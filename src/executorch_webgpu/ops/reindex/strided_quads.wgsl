{#
All of out, in order, from a strided view of x: an invocation makes 16 bytes of out.

Inputs:
  lanes = 1 | 2 | 4: elements of a word
  runs = True | False: x lies in runs of whole 16 bytes, which begin anywhere: two aligned loads are shifted; else
    elements are loaded one by one, and the place of the first one says where the next ones of its row are
  live = False | True: the view of x begins at a live index along a dimension
#}
{% set views = ("x",) %}
@group(0) @binding(0) var<storage, read> x: array<{{ "vec4<u32>" if runs else "u32" }}>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(2) var<uniform> params: Params;
{% if live %}
@group(0) @binding(3) var<uniform> start: i32;
{% endif %}

struct Params {
  dims: array<vec4<u32>, 2>,  // innermost first
  x_strides: array<vec4<i32>, 2>,
  rank: u32,
  n: u32,
  x_base: i32,
{% if runs %}
  last: u32,  // of the 16 bytes of x
{% endif %}
{% if live %}
  start_size: i32,
  start_stride: i32,
{% endif %}
}

override wg_size: u32 = 64;

const LANES = {{ lanes }}u;
const BITS = {{ 32 // lanes }}u;  // of an element
{% include "wgsl/linear_index.wgsl" %}
{% include "reindex/offsets.wgsl" %}

fn place(i: u32) -> i32 {
  return offsets(i, params.rank, params.dims, params.x_strides) + params.x_base{{ " + moved(start, params.start_size, params.start_stride)" if live }};
}

{% if runs %}
// 16 bytes from element `at` on.
fn run(at: u32) -> vec4<u32> {
  let word = at / LANES;
  let a = x[word / 4u];
  let b = x[min(word / 4u + 1u, params.last)];
  let two = (word & 2u) != 0u;
  let one = (word & 1u) != 0u;
  let near = select(a, vec4<u32>(a.zw, b.xy), two);
  let next = select(b.xy, b.zw, two);
  let words = select(near, vec4<u32>(near.yzw, next.x), one);
  {% if lanes == 1 %}
  return words;
  {% else %}
  let shift = at % LANES * BITS;
  if (shift == 0u) {
    return words;
  }
  let after = vec4<u32>(words.yzw, select(next.x, next.y, one));
  return (words >> vec4<u32>(shift)) | (after << vec4<u32>(32u - shift));
  {% endif %}
}
{% else %}
fn element(at: i32) -> u32 {
  {% if lanes == 1 %}
  return x[at];
  {% else %}
  return extractBits(x[u32(at) / LANES], u32(at) % LANES * BITS, BITS);
  {% endif %}
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  let i = quad * 4u * LANES;
  if (i >= params.n) {
    return;
  }
{% if runs %}
  out[quad] = run(u32(place(i)));
{% else %}
  let step = params.x_strides[0].x;
  let size = params.dims[0].x;
  var at = place(i);
  var column = i % size;
  var words: vec4<u32>;
  {% for k in range(4 * lanes) %}
  {% if k %}
  column++;
  at += step;
  if (column == size && i + {{ k }}u < params.n) {
    column = 0u;
    at = place(i + {{ k }}u);
  }
  at = select(at - step, at, i + {{ k }}u < params.n);  // past the end, what was last again
  {% endif %}
  {% set word = "xyzw"[k // lanes] %}
  {% if lanes == 1 %}
  words.{{ word }} = element(at);
  {% else %}
  words.{{ word }} = insertBits(words.{{ word }}, element(at), {{ k % lanes }}u * BITS, BITS);
  {% endif %}
  {% endfor %}
  out[quad] = words;
{% endif %}
}
