{#
The largest element of every window, and where it lies, or the average; four elements of out per invocation.

Tensors are [planes, D, H, W]; numbers of three dimensions are given in the order W, H, D.

Inputs:
  kind = "max" | "average": NaN is the largest; an average of integers is cut off towards 0
  indices = False | True: whether the place of the largest in its plane is a result, too: the first one, or the last NaN
  adaptive = False | True: the windows are equal parts of the input, rounded outwards; else they slide over it
  dtype = "float32" | "float16" | "bfloat16" | "int32" | "uint8" | "int8" | "int16": of x and out
#}
{% set real = "float" in dtype %}
{% set compute = "f32" if real else "i32" %}
{% set step = "vec4<i32>(1)" if adaptive else "params.dilation" %}
@group(0) @binding(0) var<storage, read> x: array<{{ dtype }}_word>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ dtype }}_quad>;
{% if indices %}
@group(0) @binding(2) var<storage, read_write> indices: array<vec4<i32>>;
{% endif %}
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  x_dims: vec4<u32>,
  out_dims: vec4<u32>,
{% if not adaptive %}
  kernel: vec4<i32>,
  stride: vec4<i32>,
  padding: vec4<i32>,
  dilation: vec4<i32>,
{% endif %}
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
{% if kind == "max" and real %}
{% include "wgsl/float_order.wgsl" %}
{% endif %}

// Elements start, start + step, ... below end, of a window that has `size` of them with the padding.
struct Window {
  start: i32,
  end: i32,
  size: i32,
}

{% if adaptive %}
// Of part `o` of `parts` of `length`: from floor(o * length / parts) to ceil((o + 1) * length / parts), without overflow.
fn window_of(o: u32, length: u32, parts: u32) -> Window {
  let whole = length / parts;
  let rest = length - whole * parts;
  let start = o * whole + o * rest / parts;
  let end = (o + 1u) * whole + ((o + 1u) * rest + parts - 1u) / parts;
  return Window(i32(start), i32(end), i32(end - start));
}

fn window_w(o: u32) -> Window {
  return window_of(o, params.x_dims.x, params.out_dims.x);
}

fn window_h(o: u32) -> Window {
  return window_of(o, params.x_dims.y, params.out_dims.y);
}

fn window_d(o: u32) -> Window {
  return window_of(o, params.x_dims.z, params.out_dims.z);
}
{% else %}
fn window_of(o: u32, length: u32, kernel: i32, stride: i32, padding: i32, dilation: i32) -> Window {
  let first = i32(o) * stride - padding;
  let last = first + (kernel - 1) * dilation;
  let size = min(last + 1, i32(length) + padding) - first;
  var start = first;
  if (first < 0) {
    start += (dilation - 1 - first) / dilation * dilation;
  }
  return Window(start, min(last + 1, i32(length)), size);
}

fn window_w(o: u32) -> Window {
  return window_of(o, params.x_dims.x, params.kernel.x, params.stride.x, params.padding.x, params.dilation.x);
}

fn window_h(o: u32) -> Window {
  return window_of(o, params.x_dims.y, params.kernel.y, params.stride.y, params.padding.y, params.dilation.y);
}

fn window_d(o: u32) -> Window {
  return window_of(o, params.x_dims.z, params.kernel.z, params.stride.z, params.padding.z, params.dilation.z);
}
{% endif %}

fn x_at(i: u32) -> {{ compute }} {
  return element_{{ dtype }}(x[i / {{ dtype }}_per_word], i);
}

{% if kind == "max" %}
struct Result {
  value: {{ compute }},
  index: i32,
}

// Larger is better; only NaN replaces its like.
{% if real %}
fn lowest() -> f32 {
  return bitcast<f32>(bits_of(RANK_OF_NEGATIVE_INFINITY));
}

fn order_of(value: f32) -> u32 {
  return rank_of(bitcast<u32>(value));
}

fn replaces(order: u32, best: u32) -> bool {
  return order > best || order == 0xffffffffu;
}
{% else %}
fn lowest() -> i32 {
  return {{ {"int32": "-2147483648", "int8": "-128", "uint8": "0", "int16": "-32768"}[dtype] }};
}

fn order_of(value: i32) -> i32 {
  return value;
}

fn replaces(order: i32, best: i32) -> bool {
  return order > best;
}
{% endif %}

fn pooled(plane: u32, d: Window, h: Window, w: Window) -> Result {
  let x_dims = vec4<i32>(params.x_dims);
  let base = plane * params.x_dims.x * params.x_dims.y * params.x_dims.z;
  var index = (d.start * x_dims.y + h.start) * x_dims.x + w.start;
  var value = lowest();  // of a window whose elements all lie in the padding
  var best = order_of(value);
  for (var z = d.start; z < d.end; z += {{ step }}.z) {
    for (var y = h.start; y < h.end; y += {{ step }}.y) {
      let row = (z * x_dims.y + y) * x_dims.x;
      for (var place = row + w.start; place < row + w.end; place += {{ step }}.x) {
        let candidate = x_at(base + u32(place));
        let order = order_of(candidate);
        if (replaces(order, best)) {
          best = order;
          value = candidate;
          index = place;
        }
      }
    }
  }
  return Result(value, index);
}
{% else %}
struct Result {
  value: {{ compute }},
}

fn pooled(plane: u32, d: Window, h: Window, w: Window) -> Result {
  let x_dims = vec4<i32>(params.x_dims);
  let base = plane * params.x_dims.x * params.x_dims.y * params.x_dims.z;
  var sum = {{ compute }}(0);
  for (var z = d.start; z < d.end; z++) {
    for (var y = h.start; y < h.end; y++) {
      let row = (z * x_dims.y + y) * x_dims.x;
      for (var place = row + w.start; place < row + w.end; place++) {
        sum += x_at(base + u32(place));
      }
    }
  }
  // A window that begins beyond the input, as rounding up leaves some, holds nothing.
  let inside = max(d.end - d.start, 0) * max(h.end - h.start, 0) * max(w.end - w.start, 0);
  var count = select(inside, d.size * h.size * w.size, params.padded != 0u);
  count = select(count, params.divisor, params.divisor != 0);
  if (inside == 0) {
    return Result({{ compute }}(0));
  }
  return Result(sum / {{ compute }}(count));
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  let count = min(4u, params.n - quad * 4u);
  var numbers = {{ dtype }}_numbers();
  {% if indices %}
  var places = vec4<i32>();
  {% endif %}
  var place = place_of(quad * 4u, params.out_dims);
  var d = window_d(place.d);
  var h = window_h(place.h);
  for (var j = 0u; j < count; j++) {
    let result = pooled(place.plane, d, h, window_w(place.w));
    numbers[j] = result.value;
    {% if indices %}
    places[j] = result.index;
    {% endif %}
    place = next_place(place, params.out_dims);
    if (place.w == 0u) {
      d = window_d(place.d);
      h = window_h(place.h);
    }
  }
  out[quad] = pack_{{ dtype }}(numbers);
  {% if indices %}
  indices[quad] = places;
  {% endif %}
}
