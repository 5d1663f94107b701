{#
Sums of products of 8-bit codes, as codes. An invocation computes four neighbouring elements of out alone.

Inputs:
  transposed = False | True: the convolution is
  aligned = False | True: four neighbours of out, from a multiple of four on, are of one channel
  relu = False | True: negative numbers become 0
  bias = False | True: whether it is added
#}
@group(0) @binding(0) var<storage, read> x: array<u32>;  // int8 [N, channels, in_size]
@group(0) @binding(1) var<storage, read> weights: array<u32>;  // int8
@group(0) @binding(2) var<storage, read> scales: array<f32>;
{% if bias %}
@group(0) @binding(3) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding(4) var<storage, read_write> out: array<u32>;  // int8 [N, groups * group_out, out_size]

struct Params {
  n: u32,
  x_zero: i32,
  x_scale: f32,
  out_factor: f32,  // the inverse of its scale
  out_zero: i32,
  scale_count: u32,  // scales, of channels one after the other, which repeat
  in_size: vec2<u32>,  // height, width
  out_size: vec2<u32>,
  kernel: vec2<u32>,
  stride: vec2<u32>,
  padding: vec2<u32>,
  dilation: vec2<u32>,
  groups: u32,
  group_in: u32,  // channels of a group
  group_out: u32,
  w_channel: u32,  // bytes from a weight to that of the next channel, tap and input
  w_tap: u32,
  w_input: u32,
}
@group(0) @binding(5) var<uniform> params: Params;

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "q8ta/requantize.wgsl" %}
{% include "q8ta/place.wgsl" %}

fn x_at(i: u32) -> i32 {
  return extractBits(bitcast<i32>(x[i / 4u]), i % 4u * 8u, 8u);
}

fn weight_at(i: u32) -> i32 {
  return extractBits(bitcast<i32>(weights[i / 4u]), i % 4u * 8u, 8u);
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
  // ---- which channels and places ----
  let element = min(vec4<u32>(i * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u));
  let rows = element / params.out_size.y;
  let column = element - rows * params.out_size.y;
  let planes = rows / params.out_size.x;
  let row = rows - planes * params.out_size.x;
  let channels = params.groups * params.group_out;
  let batch = planes / channels;
  let channel = planes - batch * channels;
  let in_plane = params.in_size.x * params.in_size.y;
  let first = (batch * params.groups + channel / params.group_out) * params.group_in * in_plane;

  // ---- the sums ----
  var sum = vec4<i32>();
  for (var ky = 0u; ky < params.kernel.x; ky++) {
    for (var kx = 0u; kx < params.kernel.y; kx++) {
      let found = places_of(
        row, column, vec2<u32>(ky, kx), params.in_size, params.stride, params.padding, params.dilation);
      if (!any(found.there)) {
        continue;
      }
      var at = first + found.at;
      {% if aligned %}
      var w = channel.x * params.w_channel + (ky * params.kernel.y + kx) * params.w_tap;
      {% else %}
      var w = channel * params.w_channel + (ky * params.kernel.y + kx) * params.w_tap;
      {% endif %}
      var products = vec4<i32>();
      for (var c = 0u; c < params.group_in; c++) {
        let codes = vec4<i32>(x_at(at.x), x_at(at.y), x_at(at.z), x_at(at.w)) - params.x_zero;
        {% if aligned %}
        products += codes * weight_at(w);
        {% else %}
        products += codes * vec4<i32>(weight_at(w.x), weight_at(w.y), weight_at(w.z), weight_at(w.w));
        {% endif %}
        at += in_plane;
        w += params.w_input;
      }
      sum += select(vec4<i32>(), products, found.there);
    }
  }

  // ---- the codes ----
  let which = channel % params.scale_count;
  let scale = params.x_scale * vec4<f32>(scales[which.x], scales[which.y], scales[which.z], scales[which.w]);
  {% if bias %}
  let added = vec4<f32>(bias[channel.x], bias[channel.y], bias[channel.z], bias[channel.w]);
  let y = rounded_product(vec4<f32>(sum), scale) + added;
  {% else %}
  let y = rounded_product(vec4<f32>(sum), scale);
  {% endif %}
  out[i] = pack4xI8(requantized(y, params.out_factor, params.out_zero));
}
