{#
The sums of several workgroups added up, finished, and written as out holds them.

An invocation takes four neighbouring elements.

Inputs:
  out_dtype = "float32" | "float16": of out
  bias = "float32" | "float16" | None: the dtype of what is added to each output channel
#}
@group(0) @binding(0) var<storage, read> sums: array<vec4<f32>>;  // [splits, quads]
@group(0) @binding(2) var<storage, read_write> out: array<{{ "vec4<f32>" if out_dtype == "float32" else "vec2<u32>" }}>;
{% include "convolution/output.wgsl" %}

struct Params {
  quads: u32,     // fours of elements, of which the last may be filled up
  splits: u32,
  plane: u32,     // elements of an output channel of an image
  channels: u32,  // of the output
  low: f32,
  high: f32,
}
@group(0) @binding(4) var<uniform> params: Params;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let quad = linear_index(gid, groups, wg_size);
  if (quad >= params.quads) {
    return;
  }
  var values = vec4<f32>();
  for (var split = 0u; split < params.splits; split++) {
    values += sums[split * params.quads + quad];
  }
  for (var i = 0u; i < 4u; i++) {
    let channel = (quad * 4u + i) / params.plane % params.channels;
    values[i] = finished(values[i], channel, params.low, params.high);
  }
  {% if out_dtype == "float32" %}
  out[quad] = values;
  {% else %}
  out[quad] = vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
  {% endif %}
}
