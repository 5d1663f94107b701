{#
Values and indices of sorted pairs, four per invocation: out [outer, count, inner] of x [outer, length, inner].

Inputs:
  x = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8": dtype of x and of the values
  choice = "first" | "median" | "nanmedian": the pairs from a first one on; or that in the middle, or NaN if there is one; or
    that in the middle of what is not NaN
  results = "both" | "values" | "indices": which are wanted
#}
@group(0) @binding(0) var<storage, read> pairs: array<vec2<u32>>;  // [rows, sorted]
{% if results != "indices" %}
@group(0) @binding(1) var<storage, read> x: array<{{ x }}_word>;
@group(0) @binding(2) var<storage, read_write> values: array<{{ x }}_quad>;
{% endif %}
{% if results != "values" %}
@group(0) @binding(3) var<storage, read_write> indices: array<vec4<i32>>;
{% endif %}

struct Params {
  n: u32,  // outer * count * inner
  length: u32,
  inner: u32,
  sorted: u32,  // pairs of a row
  first: u32,
  count: u32,
}
@group(0) @binding(4) var<uniform> params: Params;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}

{% if choice != "first" %}
// How many pairs of a row are numbers: NaN has the highest rank.
fn numbers_in(row: u32) -> u32 {
  {% if "float" not in x %}
  return params.length;
  {% else %}
  var low = 0u;
  var high = params.length;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (pairs[row * params.sorted + middle].x == 0xffffffffu) {
      high = middle;
    } else {
      low = middle + 1u;
    }
  }
  return low;
  {% endif %}
}
{% endif %}

// (index in its row, place in x) of element i of the result.
fn found(i: u32) -> vec2<u32> {
  let known = min(i, params.n - 1u);
  let inner = known % params.inner;
  let above = known / params.inner;
  let outer = above / params.count;
  let row = outer * params.inner + inner;
  {% if choice == "first" %}
  let which = params.first + above % params.count;
  {% elif choice == "median" %}
  let numbers = numbers_in(row);
  let which = select(numbers, (params.length - 1u) / 2u, numbers == params.length);
  {% else %}
  let which = (max(numbers_in(row), 1u) - 1u) / 2u;
  {% endif %}
  let index = min(pairs[row * params.sorted + which].y, params.length - 1u);
  return vec2<u32>(index, (outer * params.length + index) * params.inner + inner);
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  {% for k in range(4) %}
  let found{{ k }} = found(quad * 4u + {{ k }}u);
  {% endfor %}
  {% if results != "values" %}
  indices[quad] = vec4<i32>(vec4<u32>(found0.x, found1.x, found2.x, found3.x));
  {% endif %}
  {% if results != "indices" %}
  values[quad] = pack_{{ x }}({{ x }}_numbers(
    {% for k in range(4) %}
    element_{{ x }}(x[found{{ k }}.y / {{ x }}_per_word], found{{ k }}.y){{ "," if k != 3 }}
    {% endfor %}
  ));
  {% endif %}
}
