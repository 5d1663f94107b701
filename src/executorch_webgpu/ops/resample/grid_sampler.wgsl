{#
out = x at the places that a grid names, by interpolation in two dimensions; four elements of out per invocation.

x is [planes, H, W], out [planes, rows, columns]; numbers of two dimensions are given in the order W, H. Places of the grid
run from -1 to 1 over x.

Inputs:
  mode = "bilinear" | "nearest" | "bicubic": between four elements; the nearest one; between sixteen, with a = -0.75
  padding = "zeros" | "border" | "reflection": what lies beyond the edges: zeros, the edges, or what is within, mirrored
  corners = False | True: -1 and 1 are the centers of the first and the last elements, else their outer edges
  dtype = "float32" | "float16" | "bfloat16": of all tensors
#}
@group(0) @binding(0) var<storage, read> x: array<{{ dtype }}_word>;
@group(0) @binding(1) var<storage, read> grid: array<{{ dtype }}_word>;  // [N, rows, columns, 2]
@group(0) @binding(2) var<storage, read_write> out: array<{{ dtype }}_quad>;
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  x_dims: vec4<u32>,
  out_dims: vec4<u32>,
  n: u32,  // elements of out
  channels: u32,
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/places.wgsl" %}
{% if mode == "bicubic" %}
{% include "resample/cubic.wgsl" %}
{% endif %}

// The place among `size` elements, from what the grid says.
fn unnormalized(place: f32, size: f32) -> f32 {
  {% if corners %}
  return (place + 1.0) / 2.0 * (size - 1.0);
  {% else %}
  return ((place + 1.0) * size - 1.0) / 2.0;
  {% endif %}
}

// The place within, that counts for one beyond the edges.
fn padded(place: f32, size: f32) -> f32 {
  {% if padding == "reflection" %}
  {% if corners %}
  let low = 0.0;
  let span = size - 1.0;
  {% else %}
  let low = -0.5;
  let span = size;
  {% endif %}
  if (span == 0.0) {
    return 0.0;
  }
  let far = abs(place - low);
  let turns = floor(far / span);
  let extra = far - turns * span;
  let odd = turns - 2.0 * floor(turns / 2.0) > 0.5;
  return clamp(select(extra, span - extra, odd) + low, 0.0, size - 1.0);
  {% elif padding == "border" %}
  return clamp(place, 0.0, size - 1.0);
  {% else %}
  return place;
  {% endif %}
}

fn element(base: u32, row: i32, column: i32) -> f32 {
  let inside = row >= 0 && column >= 0 && row < i32(params.x_dims.y) && column < i32(params.x_dims.x);
  if (!inside) {
    return 0.0;
  }
  let i = base + u32(row) * params.x_dims.x + u32(column);
  return element_{{ dtype }}(x[i / {{ dtype }}_per_word], i);
}

// As an integer that leaves room for neighbours. Neither infinity nor NaN names an element.
fn whole(place: f32) -> i32 {
  return select(-16, i32(clamp(place, -16.0, 1e9)), abs(place) < 1e9);
}

fn sampled(plane: u32, at: u32) -> f32 {
  let base = plane * params.x_dims.x * params.x_dims.y;
  let i = (plane / params.channels * params.out_dims.x * params.out_dims.y + at) * 2u;
  let size = vec2<f32>(params.x_dims.xy);
  let column = unnormalized(element_{{ dtype }}(grid[i / {{ dtype }}_per_word], i), size.x);
  let row = unnormalized(element_{{ dtype }}(grid[(i + 1u) / {{ dtype }}_per_word], i + 1u), size.y);
  {% if mode == "bicubic" %}
  let left = floor(column);
  let top = floor(row);
  let across = cubic_weights(column - left);
  let down = cubic_weights(row - top);
  var value = 0.0;
  for (var dy = 0; dy < 4; dy++) {
    let y = whole(padded(top + f32(dy - 1), size.y));
    var along = 0.0;
    for (var dx = 0; dx < 4; dx++) {
      along += across[dx] * element(base, y, whole(padded(left + f32(dx - 1), size.x)));
    }
    value += down[dy] * along;
  }
  return value;
  {% else %}
  let w = padded(column, size.x);
  let h = padded(row, size.y);
  {% if mode == "nearest" %}
  return element(base, whole(round(h)), whole(round(w)));
  {% else %}
  let left = whole(floor(w));
  let top = whole(floor(h));
  let across = w - floor(w);
  let down = h - floor(h);
  let above = element(base, top, left) * (1.0 - across) + element(base, top, left + 1) * across;
  let below = element(base, top + 1, left) * (1.0 - across) + element(base, top + 1, left + 1) * across;
  return above * (1.0 - down) + below * down;
  {% endif %}
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  let count = min(4u, params.n - quad * 4u);
  var numbers = {{ dtype }}_numbers();
  var place = place_of(quad * 4u, params.out_dims);
  for (var j = 0u; j < count; j++) {
    numbers[j] = sampled(place.plane, place.h * params.out_dims.x + place.w);
    place = next_place(place, params.out_dims);
  }
  out[quad] = pack_{{ dtype }}(numbers);
}
