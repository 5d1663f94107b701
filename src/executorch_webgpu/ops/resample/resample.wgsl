{#
out = x in other sizes, by interpolation along the last dimensions; four elements of out per invocation.

Tensors are [planes, D, H, W]; numbers of three dimensions are given in the order W, H, D.

Inputs:
  mode = "nearest" | "nearest-exact" | "linear" | "cubic": an element; one by its center; between two; between four, with a = -0.75
  n = 1 | 2 | 3: dimensions that are resampled
  corners = False | True: the first and the last elements of x and out lie on each other
  dtype = "float32" | "float16" | "bfloat16" | "uint8": of x and out; only the nearest one of integers
#}
{% set taps = {"linear": 2, "cubic": 4}.get(mode, 1) %}
{% set compute = "f32" if "float" in dtype else "i32" %}
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
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/places.wgsl" %}
{% if mode == "cubic" %}
{% include "resample/cubic.wgsl" %}
{% endif %}

// The elements of x along a dimension that count for one of out, and how much.
struct Taps {
{% for t in range(taps) %}
  at{{ t }}: u32,
{% if taps > 1 %}
  weight{{ t }}: f32,
{% endif %}
{% endfor %}
}

fn taps_of(o: u32, size: u32, scale: f32) -> Taps {
  let last = i32(size) - 1;
  {% if taps == 1 %}
  return Taps(u32(min(i32(floor((f32(o) + {{ "0.5" if mode == "nearest-exact" else "0.0" }}) * scale)), last)));
  {% else %}
  {% if corners %}
  let place = f32(o) * scale;
  {% else %}
  let place = (f32(o) + 0.5) * scale - 0.5;
  {% endif %}
  {% if taps == 2 %}
  let inside = max(place, 0.0);
  let at = min(i32(inside), last);
  let fraction = clamp(inside - f32(at), 0.0, 1.0);
  return Taps(u32(at), 1.0 - fraction, u32(min(at + 1, last)), fraction);
  {% else %}
  let at = min(i32(floor(place)), last);
  let weights = cubic_weights(clamp(place - f32(at), 0.0, 1.0));
  return Taps(
    {% for t in range(4) %}
    u32(clamp(at + {{ t - 1 }}, 0, last)),
    weights[{{ t }}],
    {% endfor %}
  );
  {% endif %}
  {% endif %}
}

fn x_at(i: u32) -> {{ compute }} {
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
  {% if n > 1 %}
  var h = taps_of(place.h, x_dims.y, params.scale.y);
  {% endif %}
  {% if n > 2 %}
  var d = taps_of(place.d, x_dims.z, params.scale.z);
  {% endif %}
  for (var j = 0u; j < count; j++) {
    let plane = place.plane * x_dims.z;
    let w = taps_of(place.w, x_dims.x, params.scale.x);
    var value = {{ compute }}(0);
    {% for z in range(taps if n > 2 else 1) %}
    {% for y in range(taps if n > 1 else 1) %}
    {
      let row = ({{ "(plane + d.at%d) * x_dims.y" % z if n > 2 else "plane * x_dims.y" }}{{ " + h.at%d" % y if n > 1 else "" }}) * x_dims.x;
      {% if taps == 1 %}
      value = x_at(row + w.at0);
      {% else %}
      let along = {% for t in range(taps) %}{{ " + " if t else "" }}w.weight{{ t }} * x_at(row + w.at{{ t }}){% endfor %};
      value += along{{ " * h.weight%d" % y if n > 1 else "" }}{{ " * d.weight%d" % z if n > 2 else "" }};
      {% endif %}
    }
    {% endfor %}
    {% endfor %}
    numbers[j] = value;
    place = next_place(place, params.out_dims);
    {% if n > 1 %}
    if (place.w == 0u) {
      h = taps_of(place.h, x_dims.y, params.scale.y);
      {% if n > 2 %}
      d = taps_of(place.d, x_dims.z, params.scale.z);
      {% endif %}
    }
    {% endif %}
  }
  out[quad] = pack_{{ dtype }}(numbers);
}
