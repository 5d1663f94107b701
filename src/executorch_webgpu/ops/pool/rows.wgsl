{#
The largest element of every window that slides, and where it lies, or the average; of small windows, whose places are
constants. An invocation takes four elements of out, of one row as a rule, or of several rows: neighbours share what they
load, and what a line of x comes to for four columns.

There are no branches, so that all loads are on their way together: what lies outside is read from the edge, and not used.

Tensors are [planes, D, H, W]; numbers of three dimensions are given in the order W, H, D.

Inputs:
  kind = "max" | "average": NaN is the largest; an average of integers is cut off towards 0
  indices = False | True: whether the place of the largest in its plane is a result, too: the first one, or the last NaN
  kernel = (3, 3, 1): elements of a window
  dilation = (1, 1, 1): how far they lie apart
  stride = (1, 1): how far windows lie apart along W and H
  places = (0, 1, 2, 3, 4, 5): where four windows along W have elements, behind the beginning of the first one
  whole = False | True: whether rows of out consist of quads
  ahead = None | 0 | 3: if rows of x do, too, how many elements lie between the beginning of a quad of x and that of a window,
    so that quads are loaded; else None, and elements are
  tall = 1 | 4: rows of out that an invocation takes; several without indices, where they are whole
  lines = (0, 1, 2) | (0, 1, 2, 3, 4, 5): where windows of so many rows have lines of x, behind the first one's beginning
  dtype = "float32" | "float16" | "bfloat16" | "int32" | "uint8" | "int8" | "int16": of x and out
#}
{% set real = "float" in dtype %}
{% set compute = "f32" if real else "i32" %}
{% set ranked = kind == "max" and real %}
{% set order = "u32" if ranked else "i32" %}
{% set own = "NONE" if kind == "max" else compute ~ "(0)" %}
{% set found = namespace(quads=[], used=[]) %}
{% if ahead is not none %}
{# Quads of x that four windows along W touch, behind the one that the first window begins in; the quad of each place. #}
{% for p in places %}
{% set found.used = found.used + [(ahead + p) // 4] %}
{% endfor %}
{% set found.quads = found.used | unique | list %}
{% endif %}
{# What names the element at a place once it is loaded. Of a quad with one that is used, words are loaded alone. #}
{% macro loaded(p) -%}
{%- set q = (ahead + p) // 4 if ahead is not none else none -%}
{%- if q is none -%}
element{{ p }}
{%- elif found.used.count(q) == 1 and dtype in ("float32", "int32") -%}
quad{{ q }}
{%- else -%}
quad{{ q }}.{{ "xyzw"[(ahead + p) % 4] }}
{%- endif -%}
{%- endmacro %}
@group(0) @binding(0) var<storage, read> x: array<{{ dtype }}_{{ "word" if ahead is none else "quad" }}>;
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
  units: u32,  // invocations that have work
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

{% if ahead is none %}
fn x_at(i: u32) -> {{ compute }} {
  return element_{{ dtype }}(x[i / {{ dtype }}_per_word], i);
}

{% endif %}
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

{# What windows of four columns from `w` on and of rows from `h` on come to: `results` of row t, and `index` with indices. #}
{% macro windows() %}
  let x_dims = vec4<i32>(params.x_dims);
  let last = x_dims - 1;
  let first_w = w * {{ stride[0] }} - params.padding.x;
  let first_h = h * {{ stride[1] }} - params.padding.y;
  let first_d = i32(place.d) * params.stride.z - params.padding.z;
  {% if ahead is none %}
  {% for p in places %}
  let at{{ p }} = u32(clamp(first_w + {{ p }}, 0, last.x));
  let in{{ p }} = u32(first_w + {{ p }}) < params.x_dims.x;
  {% endfor %}
  {% else %}
  let first_quad = (first_w - {{ ahead }}) / 4;
  {% for q in found.quads %}
  let at_quad{{ q }} = u32(clamp(first_quad + {{ q }}, 0, x_dims.x / 4 - 1));
  let in_quad{{ q }} = u32(first_quad + {{ q }}) < params.x_dims.x / 4u;
  {% endfor %}
  {% for p in places %}
  let at{{ p }} = u32(first_w + {{ p }});
  let in{{ p }} = in_quad{{ found.used[loop.index0] }};
  {% endfor %}
  {% endif %}
  let starts = first_w + vec4<i32>(0, {{ stride[0] }}, {{ 2 * stride[0] }}, {{ 3 * stride[0] }});
  {% for t in range(tall) %}
  {% if kind == "max" %}
  var best{{ t }} = vec4<{{ order }}>(LEAST);
  {% if indices %}
  var value{{ t }} = vec4<{{ compute }}>({{ "bitcast<f32>(bits_of(LEAST))" if ranked else "LEAST" }});
  let plane_row = (begin(first_d, {{ dilation[2] }}) * x_dims.y + begin(first_h, {{ dilation[1] }})) * x_dims.x;
  var index{{ t }} = vec4<i32>({% for c in "xyzw" %}begin(starts.{{ c }}, {{ dilation[0] }}){{ ", " if not loop.last }}{% endfor %}) + plane_row;
  {% endif %}
  {% else %}
  var sum{{ t }} = vec4<{{ compute }}>();
  {% endif %}
  {% endfor %}
  {% for kd in range(kernel[2]) %}
  {
    let z = first_d + {{ kd * dilation[2] }};
    {% for l in lines %}
    {
      let y = first_h + {{ l }};
      let there = (u32(z) < params.x_dims.z) & (u32(y) < params.x_dims.y);
      let row = clamp(z, 0, last.z) * x_dims.y + clamp(y, 0, last.y);
      let start = (place.plane * params.x_dims.z * params.x_dims.y + u32(row)) * params.x_dims.x;
      {% for q in found.quads %}
      {% if found.used.count(q) == 1 and dtype in ("float32", "int32") %}
      let quad{{ q }} = x[start / 4u + at_quad{{ q }}].{{ "xyzw"[(ahead + places[found.used.index(q)]) % 4] }};
      {% else %}
      let quad{{ q }} = unpack_{{ dtype }}(x[start / 4u + at_quad{{ q }}]);
      {% endif %}
      {% endfor %}
      {% for p in places %}
      {% if ahead is none %}
      let element{{ p }} = x_at(start + at{{ p }});
      {% endif %}
      {% if indices %}
      let v{{ p }} = {{ loaded(p) }};
      let r{{ p }} = order_of(v{{ p }});
      {% else %}
      {% set element = "order_of(%s)" if kind == "max" else "%s" %}
      let v{{ p }} = select({{ own }}, {{ element % loaded(p) }}, in{{ p }});
      {% endif %}
      {% endfor %}
      {% for k in range(kernel[0]) %}
      {% set p = k * dilation[0] %}
      {% set four = [p, stride[0] + p, 2 * stride[0] + p, 3 * stride[0] + p] %}
      {% if indices %}
      {
        let order = vec4<{{ order }}>({% for p in four %}r{{ p }}{{ ", " if not loop.last }}{% endfor %});
        let inside = vec4<bool>({% for p in four %}in{{ p }}{{ ", " if not loop.last }}{% endfor %}) & vec4<bool>(there);
        {% if ranked %}
        let better = inside & ((order > best0) | (order == vec4<u32>(0xffffffffu)));  // the last NaN
        {% else %}
        let better = inside & (order > best0);
        {% endif %}
        let at = vec4<u32>({% for p in four %}at{{ p }}{{ ", " if not loop.last }}{% endfor %});
        let value = vec4<{{ compute }}>({% for p in four %}v{{ p }}{{ ", " if not loop.last }}{% endfor %});
        best0 = select(best0, order, better);
        value0 = select(value0, value, better);
        index0 = select(index0, vec4<i32>(at) + row * x_dims.x, better);
      }
      {% else %}
      let along{{ k }} = vec4<{{ order if kind == "max" else compute }}>({% for p in four %}v{{ p }}{{ ", " if not loop.last }}{% endfor %});
      {% endif %}
      {% endfor %}
      {% if not indices %}
      var line = along0;
      {% for k in range(1, kernel[0]) %}
      line = {{ "max(line, along%d)" % k if kind == "max" else "line + along%d" % k }};
      {% endfor %}
      line = select(vec4<{{ order if kind == "max" else compute }}>({{ own }}), line, there);
      {% for t in range(tall) %}
      {% for k in range(kernel[1]) if t * stride[1] + k * dilation[1] == l %}
      {{ "best%d = max(best%d, line)" % (t, t) if kind == "max" else "sum%d += line" % t }};
      {% endfor %}
      {% endfor %}
      {% endif %}
    }
    {% endfor %}
  }
  {% endfor %}
  {% if kind == "average" %}
  let inside_w = inside_of(starts, {{ kernel[0] }}, x_dims.x);
  let inside_d = inside_of(vec4<i32>(first_d), {{ kernel[2] }}, x_dims.z);
  let padded_w = padded_of(starts, {{ kernel[0] }}, x_dims.x, params.padding.x);
  let padded_d = padded_of(vec4<i32>(first_d), {{ kernel[2] }}, x_dims.z, params.padding.z);
  {% endif %}
  {% for t in range(tall) %}
  {% if kind == "max" %}
  {% if indices %}
  let results{{ t }} = value{{ t }};
  {% elif ranked %}
  let positive{{ t }} = best{{ t }} >= vec4<u32>(0x80000000u);
  let results{{ t }} = bitcast<vec4<f32>>(select(~best{{ t }}, best{{ t }} & vec4<u32>(0x7fffffffu), positive{{ t }}));
  {% else %}
  let results{{ t }} = best{{ t }};
  {% endif %}
  {% else %}
  let h{{ t }} = vec4<i32>(first_h + {{ t * stride[1] }});
  // A window that begins beyond the input, as rounding up leaves some, holds nothing.
  let inside{{ t }} = inside_w * inside_of(h{{ t }}, {{ kernel[1] }}, x_dims.y) * inside_d;
  var count{{ t }} = inside{{ t }};
  if (params.divisor != 0) {
    count{{ t }} = vec4<i32>(params.divisor);
  } else if (params.padded != 0u) {
    count{{ t }} = padded_w * padded_of(h{{ t }}, {{ kernel[1] }}, x_dims.y, params.padding.y) * padded_d;
  }
  let empty{{ t }} = inside{{ t }} == vec4<i32>();
  let divisor{{ t }} = vec4<{{ compute }}>(select(count{{ t }}, vec4<i32>(1), empty{{ t }}));
  let results{{ t }} = select(sum{{ t }} / divisor{{ t }}, vec4<{{ compute }}>(), empty{{ t }});
  {% endif %}
  {% endfor %}
{% endmacro %}
@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let unit = linear_index(gid, groups, wg_size);
  if (unit >= params.units) {
    return;
  }
{% if whole %}
  let height = params.out_dims.y;
  let taken = (height + {{ tall - 1 }}u) / {{ tall }}u;
  let place = place_of(unit * 4u, vec4<u32>(params.out_dims.x, taken, params.out_dims.zw));
  let w = i32(place.w);
  let h = i32(place.h * {{ tall }}u);
  {{- windows() }}
  let row = (place.plane * params.out_dims.z + place.d) * height + place.h * {{ tall }}u;
  let quad = (row * params.out_dims.x + place.w) / 4u;
  {% for t in range(tall) %}
  if (place.h * {{ tall }}u + {{ t }}u < height) {
    out[quad + {{ t }}u * (params.out_dims.x / 4u)] = pack_{{ dtype }}(results{{ t }});
    {% if indices %}
    indices[quad] = index0;
    {% endif %}
  }
  {% endfor %}
{% else %}
  var place = place_of(unit * 4u, params.out_dims);
  let width = i32(params.out_dims.x);
  // Of a quad that goes on in the next rows, all of it is computed in each row, but for what lies before and behind.
  var w = i32(place.w);
  var results = vec4<{{ compute }}>();
  {% if indices %}
  var indices_of = vec4<i32>();
  {% endif %}
  loop {
    let h = i32(place.h);
    {{- windows() }}
    let belongs = vec4<i32>(0, 1, 2, 3) + w >= vec4<i32>();
    results = select(results, results0, belongs);
    {% if indices %}
    indices_of = select(indices_of, index0, belongs);
    {% endif %}
    w -= width;
    if (w + 3 < 0) {
      break;
    }
    place.w = params.out_dims.x - 1u;
    place = next_place(place, params.out_dims);
  }
  out[unit] = pack_{{ dtype }}(results);
  {% if indices %}
  indices[unit] = indices_of;
  {% endif %}
{% endif %}
}
