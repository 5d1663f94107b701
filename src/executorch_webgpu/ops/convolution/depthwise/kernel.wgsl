{#
Convolution of each channel for itself, over one or two dimensions.

An invocation computes `outputs` neighbours along one dimension, at one place of the other: elements of x under several of
their kernels are loaded once. Neighbouring invocations are neighbours along the last dimension.

Inputs:
  outputs = 4 | 2: of an invocation
  kernel = 3 | 5: along the dimension of the neighbours
  stride = 1 | 2: along it
  dilation = 1 | 2: along it
  x_dtype = "float32" | "float16": of x
  weights_dtype = "float32" | "float16": of the weights
  bias = "float32" | "float16" | None: the dtype of what is added to each output channel
#}
@group(0) @binding(0) var<storage, read> x: array<{{ "f32" if x_dtype == "float32" else "u32" }}>;  // [batch, channels, in_size]
// [output channels, kernel]
@group(0) @binding(1) var<storage, read> weights: array<{{ "f32" if weights_dtype == "float32" else "u32" }}>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;  // [batch, channels, multiplier, out_size]
{% include "convolution/output.wgsl" %}

// Of pairs, the first is along the dimension of the neighbours.
struct Params {
  in_size: vec2<u32>,
  in_strides: vec2<u32>,
  out_size: vec2<u32>,
  out_strides: vec2<u32>,
  padding: vec2<i32>,
  weight_strides: vec2<u32>,
  others: vec3<u32>,  // of the other dimension: kernel, stride and dilation
  in_plane: u32,
  out_plane: u32,
  taps: u32,         // elements of the kernel
  multiplier: u32,   // output channels of a channel
  channels: u32,     // of the output
  blocks: u32,       // of `outputs` along the dimension of the neighbours
  inner: u32,        // invocations along the last dimension
  invocations: u32,
  low: f32,
  high: f32,
}
@group(0) @binding(4) var<uniform> params: Params;

override wg_size: u32 = 64;

const OUTPUTS = {{ outputs }}u;
{% set reach = (outputs - 1) * stride + (kernel - 1) * dilation + 1 %}

{% include "wgsl/linear_index.wgsl" %}

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

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.invocations) {
    return;
  }
  let other = i % params.inner;
  let block = i / params.inner % params.blocks;
  let plane = i / params.inner / params.blocks;  // image * channels + channel, of the output
  let channel = plane % params.channels;
  let x_plane = plane / params.multiplier * params.in_plane;
  let first = i32(block * OUTPUTS) * {{ stride }} - params.padding.x;
  {% for o in range(outputs) %}
  var sum{{ o }} = 0.0;
  {% endfor %}
  for (var t = 0u; t < params.others.x; t++) {
    let place = i32(other * params.others.y + t * params.others.z) - params.padding.y;
    if (u32(place) >= params.in_size.y) {
      continue;
    }
    let x_line = x_plane + u32(place) * params.in_strides.y;
    let weights_line = channel * params.taps + t * params.weight_strides.y;
    {% for k in range(kernel) %}
    let weight{{ k }} = load_weight(weights_line + {{ k }}u * params.weight_strides.x);
    {% endfor %}
    {% for r in range(reach) %}
    {% set users = [] %}
    {% for o in range(outputs) %}
    {% set under = r - o * stride %}
    {% if under >= 0 and under % dilation == 0 and under // dilation < kernel %}
    {% set _ = users.append((o, under // dilation)) %}
    {% endif %}
    {% endfor %}
    {% if users %}
    {
      let at = u32(first + {{ r }});
      let value = select(0.0, load_x(x_line + min(at, params.in_size.x - 1u) * params.in_strides.x), at < params.in_size.x);
      {% for o, k in users %}
      sum{{ o }} += value * weight{{ k }};
      {% endfor %}
    }
    {% endif %}
    {% endfor %}
  }
  let out_from = plane * params.out_plane + other * params.out_strides.y;
  {% for o in range(outputs) %}
  if (block * OUTPUTS + {{ o }}u < params.out_size.x) {
    let to = out_from + (block * OUTPUTS + {{ o }}u) * params.out_strides.x;
    out[to] = finished(sum{{ o }}, channel, params.low, params.high);
  }
  {% endfor %}
}
