{#
out = x in other sizes, by interpolation along the last dimensions. An invocation takes four elements of out, of one
row as a rule.

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

// The elements of x along a dimension that count for one of out, and how much; then the same of four of out.
{% for name, number, index in (("Taps", "f32", "i32"), ("Columns", "vec4<f32>", "vec4<i32>")) %}
{% set at_type = "u32" if name == "Taps" else "vec4<u32>" %}
struct {{ name }} {
{% for t in range(taps) %}
  at{{ t }}: {{ at_type }},
{% if taps > 1 %}
  weight{{ t }}: {{ number }},
{% endif %}
{% endfor %}
}

fn {{ name | lower }}_of(o: {{ number }}, size: u32, scale: f32) -> {{ name }} {
  let first = {{ index }}(0);
  let last = {{ index }}(i32(size) - 1);
  {% if taps == 1 %}
  let place = floor((o + {{ "0.5" if mode == "nearest-exact" else "0.0" }}) * scale);
  return {{ name }}({{ at_type }}(clamp({{ index }}(place), first, last)));
  {% else %}
  {% if corners %}
  let place = o * scale;
  {% else %}
  let place = (o + 0.5) * scale - 0.5;
  {% endif %}
  let zero = {{ number }}(0.0);
  let one = {{ number }}(1.0);
  {% if taps == 2 %}
  let inside = max(place, zero);
  let at = min({{ index }}(inside), last);
  let fraction = clamp(inside - {{ number }}(at), zero, one);
  return {{ name }}({{ at_type }}(at), one - fraction, {{ at_type }}(min(at + 1, last)), fraction);
  {% else %}
  let at = min({{ index }}(floor(place)), last);
  let fraction = clamp(place - {{ number }}(at), zero, one);
  {% if name == "Taps" %}
  let weights = cubic_weights(fraction);
  {% else %}
  let weights = transpose(mat4x4<f32>(
    {% for c in "xyzw" %}
    cubic_weights(fraction.{{ c }}){{ "," if c != "w" }}
    {% endfor %}
  ));
  {% endif %}
  return {{ name }}(
    {% for t in range(4) %}
    {{ at_type }}(clamp(at + {{ t - 1 }}, first, last)),
    weights[{{ t }}],
    {% endfor %}
  );
  {% endif %}
  {% endif %}
}

{% endfor %}
fn x_at(i: u32) -> {{ compute }} {
  return element_{{ dtype }}(x[i / {{ dtype }}_per_word], i);
}

{% set rows_d = taps if n > 2 else 1 %}
{% set rows_h = taps if n > 1 else 1 %}
// Columns w, w + 1, ... of a row of out; of columns that are not there, anything.
fn row_of(place: Place, w: i32) -> vec4<{{ compute }}> {
  let x_dims = params.x_dims;
  let plane = place.plane * x_dims.z;
  let columns = columns_of(vec4<f32>(vec4<i32>(w) + vec4<i32>(0, 1, 2, 3)), x_dims.x, params.scale.x);
  {% if n > 1 %}
  let h = taps_of(f32(place.h), x_dims.y, params.scale.y);
  {% endif %}
  {% if n > 2 %}
  let d = taps_of(f32(place.d), x_dims.z, params.scale.z);
  {% endif %}
  {% for z in range(rows_d) %}
  {% for y in range(rows_h) %}
  let row{{ z }}{{ y }} = ({{ "(plane + d.at%d) * x_dims.y" % z if n > 2 else "plane * x_dims.y" }}{{ " + h.at%d" % y if n > 1 }}) * x_dims.x;
  {% if taps > 1 %}
  let weight{{ z }}{{ y }} = {{ "h.weight%d" % y if n > 1 else "1.0" }}{{ " * d.weight%d" % z if n > 2 }};
  {% endif %}
  {% endfor %}
  {% endfor %}
  {% if taps == 1 %}
  return vec4<{{ compute }}>(
    {% for c in "xyzw" %}
    x_at(row00 + columns.at0.{{ c }}){{ "," if c != "w" }}
    {% endfor %}
  );
  {% else %}
  {% if taps == 2 %}
  if (params.scale.x <= 0.5) {
    // All four lie between four neighbours: these are loaded once, and first put together across rows.
    let base = columns.at0.x;
    let last = x_dims.x - 1u;
    {% for k in range(4) %}
    let at{{ k }} = min(base + {{ k }}u, last);
    let v{{ k }} = {% for z in range(rows_d) %}{% for y in range(rows_h) %}{{ " + " if z + y > 0 }}weight{{ z }}{{ y }} * x_at(row{{ z }}{{ y }} + at{{ k }}){% endfor %}{% endfor %};
    {% endfor %}
    let left = columns.at0 - base;
    let none = vec4<u32>();
    let first = left == none;
    let second = left == none + 1u;
    let lefts = select(select(vec4<f32>(v2), vec4<f32>(v1), second), vec4<f32>(v0), first);
    // At the end of a row, the neighbours on the right are those that were clamped as well.
    let rights = select(select(vec4<f32>(v3), vec4<f32>(v2), second), vec4<f32>(v1), first);
    return columns.weight0 * lefts + columns.weight1 * rights;
  }
  {% endif %}
  var sum = vec4<f32>();
  {% for z in range(rows_d) %}
  {% for y in range(rows_h) %}
  {
    var along = vec4<f32>();
    {% for t in range(taps) %}
    {
      let at = row{{ z }}{{ y }} + columns.at{{ t }};
      along += columns.weight{{ t }} * vec4<f32>(x_at(at.x), x_at(at.y), x_at(at.z), x_at(at.w));
    }
    {% endfor %}
    sum += along * weight{{ z }}{{ y }};
  }
  {% endfor %}
  {% endfor %}
  return sum;
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  {% if n > 2 %}
  var place = place_of(quad * 4u, params.out_dims);
  {% elif n > 1 %}
  let row = quad * 4u / params.out_dims.x;
  let image = row / params.out_dims.y;
  var place = Place(image, 0u, row - image * params.out_dims.y, quad * 4u - row * params.out_dims.x);
  {% else %}
  let row = quad * 4u / params.out_dims.x;
  var place = Place(row, 0u, 0u, quad * 4u - row * params.out_dims.x);
  {% endif %}
  let width = i32(params.out_dims.x);
  // Of a quad that goes on in the next rows, all of it is computed in each row, but for what lies before and behind.
  var w = i32(place.w);
  var numbers = row_of(place, w);
  for (w -= width; w + 3 >= 0; w -= width) {
    place.w = params.out_dims.x - 1u;
    place = next_place(place, params.out_dims);
    numbers = select(numbers, row_of(place, w), vec4<i32>(w) + vec4<i32>(0, 1, 2, 3) >= vec4<i32>());
  }
  out[quad] = pack_{{ dtype }}(numbers);
}
