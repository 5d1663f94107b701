{#
out[i] = x at strides of i, and further at what index tensors hold at strides of their own.

An invocation makes a unit, or 16 bytes of elements several times: the place of the first one says where the next ones
are, as far as its row goes. A workgroup that makes all of a row finds what it reads again in its multiprocessor's cache.

Inputs:
  unit = "u32" | "vec4<u32>": the WGSL type of what is moved
  quads = False | True: whether an invocation makes 16 bytes of elements; units are words then
  lanes = 1 | 2 | 4: elements that are packed in a unit; 1 without quads
  count = 1 | 2 | 4: index tensors
#}
@group(0) @binding(0) var<storage, read> x: array<{{ unit }}>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ "vec4<u32>" if quads else unit }}>;
@group(0) @binding(2) var<uniform> params: Params;
{% for k in range(count) %}
@group(0) @binding({{ 3 + k }}) var<storage, read> index{{ k }}: array<i32>;
{% endfor %}

struct Params {
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  x_strides: array<vec4<u32>, 2>,
{% for k in range(count) %}
  strides{{ k }}: array<vec4<u32>, 2>,  // of an index tensor
{% endfor %}
  sizes: vec4<i32>,  // how many elements of x each index chooses from
  steps: vec4<i32>,  // and how far apart these are
  rank: u32,
  n: u32,
  wraps: u32,  // whether negative indices count from the end
{% if quads %}
  turns: u32,  // how many times an invocation makes 16 bytes
{% endif %}
}

override wg_size: u32 = 64;

const LANES = {{ lanes }}u;
const BITS = {{ 32 // lanes }}u;  // of an element
{% include "wgsl/linear_index.wgsl" %}
{% include "indexing/index.wgsl" %}

// Of element i of out, where it lies in x but for what indices add, and where these are.
struct Place {
  x: u32,
  {% for k in range(count) %}
  index{{ k }}: u32,
  {% endfor %}
}

fn place(i: u32) -> Place {
  var rest = i;
  var at: Place;
  for (var d = 0u; d < params.rank; d++) {
    var outer = 0u;
    var coordinate = rest;
    if (d + 1u < params.rank) {  // no division for the outermost one
      let size = params.dims[d / 4u][d % 4u];
      outer = rest / size;
      coordinate = rest - outer * size;
    }
    at.x += coordinate * params.x_strides[d / 4u][d % 4u];
{% for k in range(count) %}
    at.index{{ k }} += coordinate * params.strides{{ k }}[d / 4u][d % 4u];
{% endfor %}
    rest = outer;
  }
  return at;
}

// With what indices add.
fn found(at: Place) -> u32 {
  var place = at.x;
{% for k in range(count) %}
  place += u32(in_range(index{{ k }}[at.index{{ k }}], params.sizes[{{ k }}], params.wraps) * params.steps[{{ k }}]);
{% endfor %}
  return place;
}

{% if quads %}
fn element(at: u32) -> u32 {
  {% if lanes == 1 %}
  return x[at];
  {% else %}
  return extractBits(x[at / LANES], at % LANES * BITS, BITS);
  {% endif %}
}

fn next(at: Place) -> Place {
  return Place(
    at.x + params.x_strides[0].x,
    {% for k in range(count) %}
    at.index{{ k }} + params.strides{{ k }}[0].x,
    {% endfor %}
  );
}

// 16 bytes of out.
fn make(quad: u32) {
  let i = quad * 4u * LANES;
  if (i >= params.n) {
    return;
  }
  let size = params.dims[0].x;
  var column = i % size;
  let at0 = place(i);
  // All places first, so that the loads of indices, and then those of elements, are on their way together.
  {% for k in range(1, 4 * lanes) %}
  column++;
  var at{{ k }} = at{{ k - 1 }};  // past the end, what was last again
  if (i + {{ k }}u < params.n) {
    at{{ k }} = next(at{{ k - 1 }});
    if (column == size) {
      column = 0u;
      at{{ k }} = place(i + {{ k }}u);
    }
  }
  {% endfor %}
  var words: vec4<u32>;
  {% for k in range(4 * lanes) %}
  {% set word = "xyzw"[k // lanes] %}
  {% if lanes == 1 %}
  words.{{ word }} = element(found(at{{ k }}));
  {% else %}
  words.{{ word }} = insertBits(words.{{ word }}, element(found(at{{ k }})), {{ k % lanes }}u * BITS, BITS);
  {% endif %}
  {% endfor %}
  out[quad] = words;
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
{% if quads %}
  let order = linear_index(gid, groups, wg_size);
  let lane = order % wg_size;
  let first = (order - lane) * params.turns + lane;
  for (var turn = 0u; turn < params.turns; turn++) {
    make(first + turn * wg_size);
  }
{% else %}
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  out[i] = x[found(place(i))];
{% endif %}
}
