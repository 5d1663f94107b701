{#
out = x in other sizes, by averages that are as wide as the elements of out; four elements of out per invocation.

Tensors are [planes, H, W]; numbers of two dimensions are given in the order W, H.

Inputs:
  mode = "linear" | "cubic": the weights fall in a line; or by the cubic convolution of Keys, with a = -0.5
  dtype = "float32" | "float16" | "bfloat16": of x and out
#}
@group(0) @binding(0) var<storage, read> x: array<{{ dtype }}_word>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ dtype }}_quad>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  x_dims: vec4<u32>,
  out_dims: vec4<u32>,
  scale: vec4<f32>,  // elements of x between two of out
  n: u32,  // elements of out
}

override wg_size: u32 = 64;
const REACH = {{ "1.0" if mode == "linear" else "2.0" }};  // where weights end, for a scale of 1
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/places.wgsl" %}

// Elements of x from start below end count; weights are those of their distances from the center.
struct Window {
  center: f32,
  narrow: f32,  // what distances are multiplied by
  start: u32,
  end: u32,
  total: f32,
}

fn weight(distance: f32) -> f32 {
  let far = abs(distance);
  {% if mode == "linear" %}
  return max(1.0 - far, 0.0);
  {% else %}
  let inner = (1.5 * far - 2.5) * far * far + 1.0;
  let outer = ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0;
  return select(select(0.0, outer, far < 2.0), inner, far < 1.0);
  {% endif %}
}

fn weight_at(window: Window, i: u32) -> f32 {
  return weight((f32(i) - window.center + 0.5) * window.narrow);
}

fn window_of(o: u32, size: u32, scale: f32) -> Window {
  let wide = max(scale, 1.0);
  let center = (f32(o) + 0.5) * scale;
  let start = max(i32(center - REACH * wide + 0.5), 0);
  let end = min(i32(center + REACH * wide + 0.5), i32(size));
  var window = Window(center, 1.0 / wide, u32(start), u32(end), 0.0);
  for (var i = window.start; i < window.end; i++) {
    window.total += weight_at(window, i);
  }
  return window;
}

fn x_at(i: u32) -> f32 {
  return element_{{ dtype }}(x[i / {{ dtype }}_per_word], i);
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  let count = min(4u, params.n - quad * 4u);
  let x_dims = params.x_dims;
  var numbers = {{ dtype }}_numbers();
  var place = place_of(quad * 4u, params.out_dims);
  for (var j = 0u; j < count; j++) {
    let h = window_of(place.h, x_dims.y, params.scale.y);
    let w = window_of(place.w, x_dims.x, params.scale.x);
    var value = 0.0;
    for (var y = h.start; y < h.end; y++) {
      let row = (place.plane * x_dims.y + y) * x_dims.x;
      var along = 0.0;
      for (var i = w.start; i < w.end; i++) {
        along += weight_at(w, i) * x_at(row + i);
      }
      value += weight_at(h, y) * along;
    }
    let total = h.total * w.total;
    numbers[j] = select(value / total, 0.0, total == 0.0);  // a scale may lead beyond x
    place = next_place(place, params.out_dims);
  }
  out[quad] = pack_{{ dtype }}(numbers);
}
