{#
out = x with elements added before and after along its dimensions, or taken away; four elements of out per invocation.

Inputs:
  mode = "constant" | "reflection" | "replication": what is added: a value, what lies behind the edge, or the edge
  dtype = "float32" | "float16" | "bfloat16" | "int32" | "bool" | "uint8" | "int8" | "int16": of x and out
#}
{% set number = "f32" if "float" in dtype else "u32" if dtype == "bool" else "i32" %}
@group(0) @binding(0) var<storage, read> x: array<{{ dtype }}_word>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ dtype }}_quad>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  x_dims: array<vec4<i32>, 2>,
  before: array<vec4<i32>, 2>,  // elements that are added at the front; fewer than 0 are taken away
  rank: u32,
  n: u32,  // elements of out
{% if mode == "constant" %}
  value: {{ number }},
{% endif %}
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}

// The coordinate in x of one of out, of a dimension of x that has `size` elements; -1 if it has none.
fn source(coordinate: i32, size: i32) -> i32 {
  {% if mode == "constant" %}
  return select(-1, coordinate, coordinate >= 0 && coordinate < size);
  {% elif mode == "replication" %}
  return clamp(coordinate, 0, size - 1);
  {% else %}
  let mirrored = abs(coordinate);
  return select(mirrored, 2 * (size - 1) - mirrored, mirrored >= size);
  {% endif %}
}

// Where the row of x begins, of which a row of out holds elements; -1 if there is none. Rows are innermost dimensions.
fn row_start(row: u32) -> i32 {
  var rest = row;
  var start = 0;
  var stride = params.x_dims[0][0];
  for (var d = 1u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let coordinate = i32(rest - outer * size) - params.before[d / 4u][d % 4u];
    let x_size = params.x_dims[d / 4u][d % 4u];
    let at = source(coordinate, x_size);
    if (at < 0) {
      return -1;
    }
    start += at * stride;
    stride *= x_size;
    rest = outer;
  }
  return start;
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  let width = params.dims[0][0];
  let count = min(4u, params.n - quad * 4u);
  var row = quad * 4u / width;
  var column = quad * 4u - row * width;
  var start = row_start(row);
  var numbers = {{ dtype }}_numbers();
  for (var j = 0u; j < count; j++) {
    let at = source(i32(column) - params.before[0][0], params.x_dims[0][0]);
    {% if mode == "constant" %}
    numbers[j] = params.value;
    if (start >= 0 && at >= 0) {
      let i = u32(start + at);
      numbers[j] = element_{{ dtype }}(x[i / {{ dtype }}_per_word], i);
    }
    {% else %}
    let i = u32(start + at);
    numbers[j] = element_{{ dtype }}(x[i / {{ dtype }}_per_word], i);
    {% endif %}
    column += 1u;
    if (column == width && j + 1u < count) {
      column = 0u;
      row += 1u;
      start = row_start(row);
    }
  }
  out[quad] = pack_{{ dtype }}(numbers);
}
