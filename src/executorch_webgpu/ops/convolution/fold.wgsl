{#
What each place of x adds to a transposed convolution, added up: the second half of the gemm route.

An invocation computes four neighbouring elements.

Inputs:
  out_dtype = "float32" | "float16": of out
  bias = "float32" | "float16" | None: the dtype of what is added to each output channel
#}
{% set transposed = True %}
@group(0) @binding(0) var<storage, read> sums: array<f32>;  // [splits, batch, channels, kernel, in_size]
@group(0) @binding(2) var<storage, read_write> out: array<{{ "vec4<f32>" if out_dtype == "float32" else "vec2<u32>" }}>;
{% include "convolution/output.wgsl" %}

struct Params {
  in_size: vec4<u32>,  // depth, height, width and their product; so are the next two
  out_size: vec4<u32>,
  kernel: vec4<u32>,
  stride: vec4<u32>,  // depth, height, width; so are the next two
  padding: vec4<i32>,
  dilation: vec4<i32>,
  n: u32,         // elements of out
  splits: u32,
  split_size: u32,  // elements of sums from a split to the next
  channels: u32,  // of the output
  low: f32,
  high: f32,
}
@group(0) @binding(4) var<uniform> params: Params;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/volume.wgsl" %}
{% include "convolution/read_place.wgsl" %}

fn added_up(at: u32) -> f32 {
  let channel = at / params.out_size.w;  // of all images
  let out_at = vec3<i32>(coordinates(at % params.out_size.w, params.out_size.xyz));
  var sum = 0.0;
  for (var t = 0u; t < params.kernel.w; t++) {
    let tap = vec3<i32>(coordinates(t, params.kernel.xyz));
    let stride = vec3<i32>(params.stride.xyz);
    let read = read_place(out_at, tap, stride, params.padding.xyz, params.dilation.xyz);
    if (is_inside(read, params.in_size.xyz)) {
      let begin = (channel * params.kernel.w + t) * params.in_size.w + place(vec3<u32>(read), params.in_size.xyz);
      for (var split = 0u; split < params.splits; split++) {
        sum += sums[split * params.split_size + begin];
      }
    }
  }
  return finished(sum, channel % params.channels, params.low, params.high);
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad * 4u >= params.n) {
    return;
  }
  var values = vec4<f32>();
  for (var i = 0u; i < 4u; i++) {
    values[i] = added_up(min(quad * 4u + i, params.n - 1u));
  }
  {% if out_dtype == "float32" %}
  out[quad] = values;
  {% else %}
  out[quad] = vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
  {% endif %}
}
