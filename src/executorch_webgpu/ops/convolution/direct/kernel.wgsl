{#
Convolution, or transposed convolution, over up to three dimensions, with any stride, padding, dilation and groups.

An invocation computes some neighbouring output channels of a group at some neighbouring places, alone, so each element
of x that it loads serves several channels, and each weight several places.

Inputs:
  x_dtype = "float32" | "float16": of x
  weights_dtype = "float32" | "float16": of the weights
  channels = 1 | 4 | 8: of an invocation
  places = 1 | 4 | 8: of an invocation
  transposed = False | True: strides are those of the output
  bias = "float32" | "float16" | None: the dtype of what is added to each output channel
#}
@group(0) @binding(0) var<storage, read> x: array<{{ "f32" if x_dtype == "float32" else "u32" }}>;  // [batch, groups, group_in, in_size]
@group(0) @binding(1) var<storage, read> weights: array<{{ "f32" if weights_dtype == "float32" else "u32" }}>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;  // [batch, groups, group_out, out_size]
{% include "convolution/output.wgsl" %}

struct Params {
  in_size: vec4<u32>,  // depth, height, width and their product; so are the next two
  out_size: vec4<u32>,
  kernel: vec4<u32>,
  stride: vec4<u32>,  // depth, height, width; so are the next two
  padding: vec4<i32>,
  dilation: vec4<i32>,
  groups: u32,
  group_in: u32,       // input channels of a group
  group_out: u32,      // output channels of a group
  weights_group: u32,  // elements of weights from a group to the next,
  weights_out: u32,    // from an output channel to the next,
  weights_in: u32,     // and from an input channel to the next
  place_blocks: u32,   // of a channel of the output
  channel_blocks: u32,  // of a group
  invocations: u32,
  low: f32,
  high: f32,
}
@group(0) @binding(4) var<uniform> params: Params;

override wg_size: u32 = 64;

const CHANNELS = {{ channels }}u;
const PLACES = {{ places }}u;

{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/volume.wgsl" %}

fn load_x(at: u32) -> f32 {
  {% if x_dtype == "float32" %}
  return x[at];
  {% else %}
  return unpack2x16float(x[at / 2u])[at % 2u];
  {% endif %}
}

fn load_weight(at: u32) -> f32 {
  {% if weights_dtype == "float32" %}
  return weights[at];
  {% else %}
  return unpack2x16float(weights[at / 2u])[at % 2u];
  {% endif %}
}

{% include "convolution/read_place.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.invocations) {
    return;
  }
  let first_place = i % params.place_blocks * PLACES;
  let block = i / params.place_blocks;
  let first_channel = block % params.channel_blocks * CHANNELS;
  let image_group = block / params.channel_blocks;  // n * groups + group
  let group = image_group % params.groups;

  // Places and channels past the end repeat the last one and are not stored.
  {% for p in range(places) %}
  let at{{ p }} = vec3<i32>(coordinates(min(first_place + {{ p }}u, params.out_size.w - 1u), params.out_size.xyz));
  {% endfor %}
  let weights_from = group * params.weights_group;
  {% for c in range(channels) %}
  let weights{{ c }} = weights_from + min(first_channel + {{ c }}u, params.group_out - 1u) * params.weights_out;
  {% endfor %}
  {% for c in range(channels) %}
  {% for p in range(places) %}
  var sum{{ c }}_{{ p }} = 0.0;
  {% endfor %}
  {% endfor %}
  let x_from = image_group * params.group_in * params.in_size.w;
  for (var t = 0u; t < params.kernel.w; t++) {
    let tap = vec3<i32>(coordinates(t, params.kernel.xyz));
    let stride = vec3<i32>(params.stride.xyz);
    {% for p in range(places) %}
    let read{{ p }} = read_place(at{{ p }}, tap, stride, params.padding.xyz, params.dilation.xyz);
    let inside{{ p }} = is_inside(read{{ p }}, params.in_size.xyz);
    var x_at{{ p }} = x_from + select(0u, place(vec3<u32>(read{{ p }}), params.in_size.xyz), inside{{ p }});
    {% endfor %}
    {% if places == 1 %}
    if (!inside0) {
      continue;
    }
    {% endif %}
    var w = t;
    for (var channel = 0u; channel < params.group_in; channel++) {
      {% for p in range(places) %}
      {% if places == 1 %}
      let x{{ p }} = load_x(x_at{{ p }});
      {% else %}
      let x{{ p }} = select(0.0, load_x(x_at{{ p }}), inside{{ p }});
      {% endif %}
      x_at{{ p }} += params.in_size.w;
      {% endfor %}
      {% for c in range(channels) %}
      {
        let weight = load_weight(weights{{ c }} + w);
        {% for p in range(places) %}
        sum{{ c }}_{{ p }} += x{{ p }} * weight;
        {% endfor %}
      }
      {% endfor %}
      w += params.weights_in;
    }
  }

  let out_from = (image_group * params.group_out + first_channel) * params.out_size.w + first_place;
  {% for c in range(channels) %}
  if (first_channel + {{ c }}u < params.group_out) {
    let channel = group * params.group_out + first_channel + {{ c }}u;
    {% for p in range(places) %}
    if (first_place + {{ p }}u < params.out_size.w) {
      out[out_from + {{ c }}u * params.out_size.w + {{ p }}u] = finished(sum{{ c }}_{{ p }}, channel, params.low, params.high);
    }
    {% endfor %}
  }
  {% endfor %}
}
