{#
The largest element of every window that slides, and where it lies, or the average; of small windows, whose places are
constants. An invocation takes four elements of out, of one row as a rule: neighbours share what they load.

Tensors are [planes, D, H, W]; numbers of three dimensions are given in the order W, H, D.

Inputs:
  kind = "max" | "average": NaN is the largest; an average of integers is cut off towards 0
  indices = False | True: whether the place of the largest in its plane is a result, too: the first one, or the last NaN
  kernel = (3, 3, 1): elements of a window
  dilation = (1, 1, 1): how far they lie apart
  stride = 1: how far windows lie apart along W
  places = (0, 1, 2, 3, 4, 5): where four windows along W have elements, behind the beginning of the first one
  dtype = "float32" | "float16" | "bfloat16" | "int32" | "uint8" | "int8" | "int16": of x and out
#}
{% set real = "float" in dtype %}
{% set compute = "f32" if real else "i32" %}
{% set ranked = kind == "max" and real %}
{% set order = "u32" if ranked else "i32" %}
{% set flat = kernel[2] == 1 %}
@group(0) @binding(0) var<storage, read> x: array<{{ dtype }}_word>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ dtype }}_quad>;
{% if indices %}
@group(0) @binding(2) var<storage, read_write> indices: array<vec4<i32>>;
{% endif %}
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  x_dims: vec4<u32>,
  out_dims: vec4<u32>,
  stride: vec4<i32>,
  padding: vec4<i32>,
  n: u32,  // elements of out
{% if kind == "average" %}
  divisor: i32,  // instead of the size of a window; 0: none
  padded: u32,  // the padding counts
{% endif %}
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/places.wgsl" %}
{% if ranked %}
{% include "wgsl/float_order.wgsl" %}
{% endif %}

fn x_at(i: u32) -> {{ compute }} {
  return element_{{ dtype }}(x[i / {{ dtype }}_per_word], i);
}

{% if kind == "max" %}
{% if ranked %}
const LEAST = {{ "RANK_OF_NEGATIVE_INFINITY" }};  // of a window whose elements all lie in the padding
const NONE = 0u;  // of an element that there is not

fn order_of(value: f32) -> u32 {
  {% if indices %}
  return rank_of(bitcast<u32>(value));
  {% else %}
  // Zeros keep their signs, since equals need not be told from each other.
  let bits = bitcast<u32>(value);
  let rank = select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
  return select(rank, 0xffffffffu, (bits & 0x7fffffffu) > 0x7f800000u);
  {% endif %}
}
{% else %}
const LEAST = {{ {"int32": "i32(-2147483647 - 1)", "int8": "-128", "uint8": "0", "int16": "-32768"}[dtype] }};
const NONE = LEAST;

fn order_of(value: i32) -> i32 {
  return value;
}
{% endif %}
{% endif %}

struct Found {
  {% if kind == "max" %}
  best: vec4<{{ order }}>,  // by `order_of`
  {% if indices %}
  value: vec4<{{ compute }}>,
  index: vec4<i32>,
  {% endif %}
  {% else %}
  sum: vec4<{{ compute }}>,
  {% endif %}
}

struct Columns {
  {% for p in places %}
  at{{ p }}: u32,
  in{{ p }}: bool,
  {% endfor %}
}

// The row of x that begins at `start`, for the windows of a row of out. `row`: where it begins in its plane.
fn add_row(found: ptr<function, Found>, columns: Columns, start: u32, row: i32) {
  {% for p in places %}
  {% if kind == "max" %}
  {% if indices %}
  let v{{ p }} = x_at(start + columns.at{{ p }});
  let r{{ p }} = order_of(v{{ p }});
  {% else %}
  let r{{ p }} = select(NONE, order_of(x_at(start + columns.at{{ p }})), columns.in{{ p }});
  {% endif %}
  {% else %}
  let v{{ p }} = select({{ compute }}(0), x_at(start + columns.at{{ p }}), columns.in{{ p }});
  {% endif %}
  {% endfor %}
  {% for k in range(kernel[0]) %}
  {% set four = [k * dilation[0], stride + k * dilation[0], 2 * stride + k * dilation[0], 3 * stride + k * dilation[0]] %}
  {% if kind == "average" %}
  (*found).sum += vec4<{{ compute }}>({% for p in four %}v{{ p }}{{ ", " if not loop.last }}{% endfor %});
  {% elif not indices %}
  (*found).best = max((*found).best, vec4<{{ order }}>({% for p in four %}r{{ p }}{{ ", " if not loop.last }}{% endfor %}));
  {% else %}
  {
    let order = vec4<{{ order }}>({% for p in four %}r{{ p }}{{ ", " if not loop.last }}{% endfor %});
    let inside = vec4<bool>({% for p in four %}columns.in{{ p }}{{ ", " if not loop.last }}{% endfor %});
    {% if ranked %}
    let better = inside & ((order > (*found).best) | (order == vec4<u32>(0xffffffffu)));  // the last NaN
    {% else %}
    let better = inside & (order > (*found).best);
    {% endif %}
    let at = vec4<u32>({% for p in four %}columns.at{{ p }}{{ ", " if not loop.last }}{% endfor %});
    let value = vec4<{{ compute }}>({% for p in four %}v{{ p }}{{ ", " if not loop.last }}{% endfor %});
    (*found).best = select((*found).best, order, better);
    (*found).value = select((*found).value, value, better);
    (*found).index = select((*found).index, vec4<i32>(at) + row, better);
  }
  {% endif %}
  {% endfor %}
}

// Where the first element of a window that does not lie before x lies: `first` is where the window begins.
fn begin(first: i32, dilation: i32) -> i32 {
  return select(first, first + (dilation - 1 - first) / dilation * dilation, first < 0);
}

// The elements of windows along an axis, which begin at `first` and have a dilation of 1.
fn inside_of(first: vec4<i32>, kernel: i32, length: i32) -> vec4<i32> {
  return max(min(first + kernel, vec4<i32>(length)) - max(first, vec4<i32>()), vec4<i32>());
}

fn padded_of(first: vec4<i32>, kernel: i32, length: i32, padding: i32) -> vec4<i32> {
  return min(first + kernel, vec4<i32>(length + padding)) - first;
}

struct Results {
  numbers: vec4<{{ compute }}>,
  {% if indices %}
  places: vec4<i32>,
  {% endif %}
}

// What the windows of columns w, w + 1, ... of a row of out come to; of columns that are not there, anything.
fn results_of(place: Place, w: i32) -> Results {
  let x_dims = vec4<i32>(params.x_dims);
  let last = x_dims.x - 1;
  let first_w = w * {{ stride }} - params.padding.x;
  let first_h = i32(place.h) * params.stride.y - params.padding.y;
  {% if not flat %}
  let first_d = i32(place.d) * params.stride.z - params.padding.z;
  {% endif %}
  var columns: Columns;
  {% for p in places %}
  columns.at{{ p }} = u32(clamp(first_w + {{ p }}, 0, last));
  columns.in{{ p }} = first_w + {{ p }} >= 0 && first_w + {{ p }} <= last;
  {% endfor %}
  let starts = first_w + vec4<i32>(0, {{ stride }}, {{ 2 * stride }}, {{ 3 * stride }});
  var found: Found;
  {% if kind == "max" %}
  found.best = vec4<{{ order }}>(LEAST);
  {% if indices %}
  found.value = vec4<{{ compute }}>({{ "bitcast<f32>(bits_of(LEAST))" if ranked else "LEAST" }});
  {% set d = "begin(first_d, %d)" % dilation[2] if not flat else "i32(place.d) * params.stride.z" %}
  let plane_row = ({{ d }} * x_dims.y + begin(first_h, {{ dilation[1] }})) * x_dims.x;
  found.index = vec4<i32>({% for c in "xyzw" %}begin(starts.{{ c }}, {{ dilation[0] }}){{ ", " if not loop.last }}{% endfor %}) + plane_row;
  {% endif %}
  {% endif %}
  {% for kd in range(kernel[2]) %}
  {
    let z = {{ "first_d + %d" % (kd * dilation[2]) if not flat else "i32(place.d) * params.stride.z - params.padding.z" }};
    if (z >= 0 && z < x_dims.z) {
      {% for kh in range(kernel[1]) %}
      {
        let y = first_h + {{ kh * dilation[1] }};
        if (y >= 0 && y < x_dims.y) {
          let row = z * x_dims.y + y;
          let start = (place.plane * params.x_dims.z * params.x_dims.y + u32(row)) * params.x_dims.x;
          add_row(&found, columns, start, row * x_dims.x);
        }
      }
      {% endfor %}
    }
  }
  {% endfor %}
  {% if kind == "max" %}
  {% if indices %}
  return Results(found.value, found.index);
  {% elif ranked %}
  let numbers = select(~found.best, found.best & vec4<u32>(0x7fffffffu), found.best >= vec4<u32>(0x80000000u));
  return Results(bitcast<vec4<f32>>(numbers));
  {% else %}
  return Results(found.best);
  {% endif %}
  {% else %}
  let h = vec4<i32>(first_h);
  let d = vec4<i32>({{ "first_d" if not flat else "i32(place.d) * params.stride.z - params.padding.z" }});
  // A window that begins beyond the input, as rounding up leaves some, holds nothing.
  let inside = inside_of(starts, {{ kernel[0] }}, x_dims.x) * inside_of(h, {{ kernel[1] }}, x_dims.y)
    * inside_of(d, {{ kernel[2] }}, x_dims.z);
  var count = inside;
  if (params.divisor != 0) {
    count = vec4<i32>(params.divisor);
  } else if (params.padded != 0u) {
    count = padded_of(starts, {{ kernel[0] }}, x_dims.x, params.padding.x)
      * padded_of(h, {{ kernel[1] }}, x_dims.y, params.padding.y)
      * padded_of(d, {{ kernel[2] }}, x_dims.z, params.padding.z);
  }
  let empty = inside == vec4<i32>();
  count = select(count, vec4<i32>(1), empty);
  return Results(select(found.sum / vec4<{{ compute }}>(count), vec4<{{ compute }}>(), empty));
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  var place = place_of(quad * 4u, params.out_dims);
  let width = i32(params.out_dims.x);
  // Of a quad that goes on in the next rows, all of it is computed in each row, but for what lies before and behind.
  var w = i32(place.w);
  var results = results_of(place, w);
  let lanes = vec4<i32>(0, 1, 2, 3);
  for (w -= width; w + 3 >= 0; w -= width) {
    place.w = params.out_dims.x - 1u;
    place = next_place(place, params.out_dims);
    let next = results_of(place, w);
    let belongs = lanes + w >= vec4<i32>();
    results.numbers = select(results.numbers, next.numbers, belongs);
    {% if indices %}
    results.places = select(results.places, next.places, belongs);
    {% endif %}
  }
  out[quad] = pack_{{ dtype }}(results.numbers);
  {% if indices %}
  indices[quad] = results.places;
  {% endif %}
}
