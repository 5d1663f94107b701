{#
out = (x - mean) / deviation * weight + bias, where these are the same for a channel; four elements per invocation.

x and out are [N, C, inner].

Inputs:
  stats = "variance" | "rows": mean and variance [C] are given; or mean and 1/deviation of rows of channels, which become results
  weight = True | False: whether there is one
  bias = True | False: whether there is one
  dtype = "float32" | "float16" | "bfloat16": of x and all results
  affine = "float32" | "float16" | "bfloat16": of mean, variance, weight and bias
#}
@group(0) @binding(0) var<storage, read> x: array<{{ dtype }}_quad>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ dtype }}_quad>;
{% if stats == "variance" %}
@group(0) @binding(2) var<storage, read> mean: array<{{ affine }}_word>;
@group(0) @binding(3) var<storage, read> variance: array<{{ affine }}_word>;
{% else %}
@group(0) @binding(2) var<storage, read_write> mean: array<{{ dtype }}_quad>;
@group(0) @binding(3) var<storage, read_write> rstd: array<{{ dtype }}_quad>;
@group(0) @binding(4) var<storage, read> stats: array<vec2<f32>>;  // mean and 1/deviation of every row
{% endif %}
{% if weight %}
@group(0) @binding(5) var<storage, read> weight: array<{{ affine }}_word>;
{% endif %}
{% if bias %}
@group(0) @binding(6) var<storage, read> bias: array<{{ affine }}_word>;
{% endif %}
@group(0) @binding(7) var<uniform> params: Params;

struct Params {
  n: u32,  // elements of x
  channels: u32,
  inner: u32,
{% if stats == "variance" %}
  eps: f32,
{% else %}
  rows: u32,
  row_channels: u32,  // neighbouring channels that are a row
{% endif %}
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}

// What an element of a plane is multiplied by after its mean is taken away, and what is added then.
struct Channel {
  mean: f32,
  factor: f32,
  shift: f32,
}

fn channel_of(plane: u32) -> Channel {
  let c = plane % params.channels;
  {% if stats == "variance" %}
  let center = element_{{ affine }}(mean[c / {{ affine }}_per_word], c);
  var factor = 1.0 / sqrt(element_{{ affine }}(variance[c / {{ affine }}_per_word], c) + params.eps);
  {% else %}
  let row = stats[plane / params.row_channels % params.rows];
  let center = row.x;
  var factor = row.y;
  {% endif %}
  {% if weight %}
  factor *= element_{{ affine }}(weight[c / {{ affine }}_per_word], c);
  {% endif %}
  {% if bias %}
  return Channel(center, factor, element_{{ affine }}(bias[c / {{ affine }}_per_word], c));
  {% else %}
  return Channel(center, factor, 0.0);
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  {% if stats == "rows" %}
  let order = linear_index(gid, groups, wg_size);
  let quads = (max(params.n, params.rows) + 3u) / 4u;
  if (order >= quads) {
    return;
  }
  let quad = quads - 1u - order;  // what the statistics were taken of last may still be in a cache
  if (quad * 4u < params.rows) {
    let last = params.rows - 1u;
    let at0 = stats[quad * 4u];
    let at1 = stats[min(quad * 4u + 1u, last)];
    let at2 = stats[min(quad * 4u + 2u, last)];
    let at3 = stats[min(quad * 4u + 3u, last)];
    mean[quad] = pack_{{ dtype }}(vec4<f32>(at0.x, at1.x, at2.x, at3.x));
    rstd[quad] = pack_{{ dtype }}(vec4<f32>(at0.y, at1.y, at2.y, at3.y));
  }
  {% else %}
  let quad = linear_index(gid, groups, wg_size);
  {% endif %}
  if (quad * 4u >= params.n) {
    return;
  }
  let numbers = unpack_{{ dtype }}(x[quad]);
  var plane = quad * 4u / params.inner;
  var left = params.inner - (quad * 4u - plane * params.inner);  // elements before the next plane
  var channel = channel_of(plane);
  if (left >= 4u) {
    out[quad] = pack_{{ dtype }}((numbers - channel.mean) * channel.factor + channel.shift);
    return;
  }
  var results = vec4<f32>();
  for (var j = 0u; j < 4u; j++) {
    if (left == 0u) {
      plane += 1u;
      left = params.inner;
      channel = channel_of(plane);
    }
    left -= 1u;
    results[j] = (numbers[j] - channel.mean) * channel.factor + channel.shift;
  }
  out[quad] = pack_{{ dtype }}(results);
}
