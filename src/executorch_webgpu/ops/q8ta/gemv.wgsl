{#
A linear layer of 8-bit codes on a few rows, as codes. A team of invocations computes four neighbouring elements of out, each of
them a part of the products, four in one instruction.

Inputs:
  words = False | True: four neighbours of out, from a multiple of four on, are of one row
  whole_x = False | True: rows of x are whole words
  relu = False | True: negative numbers become 0
  bias = False | True: whether it is added
#}
@group(0) @binding(0) var<storage, read> x: array<u32>;  // int8 [rows, k]
@group(0) @binding(1) var<storage, read> weights: array<u32>;  // int8 [channels, row_words * 4]
@group(0) @binding(2) var<storage, read> weight_sums: array<i32>;  // [channels]
@group(0) @binding(3) var<storage, read> scales: array<f32>;  // [channels]
{% if bias %}
@group(0) @binding(4) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding(5) var<storage, read_write> out: array<u32>;  // int8 [rows, channels]

struct Params {
  n: u32,  // elements of out
  k: u32,
  row_words: u32,  // of weights
  channels: u32,
  x_zero: i32,
  x_scale: f32,
  out_factor: f32,  // the inverse of its scale
  out_zero: i32,
}
@group(0) @binding(6) var<uniform> params: Params;

override wg_size: u32 = 64;
override lanes: u32 = 16;  // of a team

var<workgroup> partials: array<vec4<i32>, wg_size>;

{% include "q8ta/requantize.wgsl" %}

// Four codes of a row of x; past its end anything, where weights are 0.
fn x_word(row: u32, word: u32) -> u32 {
  {% if whole_x %}
  return x[row * (params.k / 4u) + word];
  {% else %}
  let last = row * params.k + params.k - 1u;
  let at = min(vec4<u32>(row * params.k + word * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
  let stored = vec4<u32>(x[at.x / 4u], x[at.y / 4u], x[at.z / 4u], x[at.w / 4u]);
  return pack4xU8((stored >> (at % 4u * 8u)) & vec4<u32>(0xffu));
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let lane = index % lanes;
  let i = (group.x + group.y * groups.x) * (wg_size / lanes) + index / lanes;
  let element = min(vec4<u32>(i * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.n - 1u));
  let row = element / params.channels;
  let channel = element - row * params.channels;
  let first = channel * params.row_words;
  var sums = vec4<i32>();
  for (var k = lane; k < params.row_words; k += lanes) {
    {% if words %}
    let given = vec4<u32>(x_word(row.x, k));
    {% else %}
    let given = vec4<u32>(x_word(row.x, k), x_word(row.y, k), x_word(row.z, k), x_word(row.w, k));
    {% endif %}
    sums += vec4<i32>(
      dot4I8Packed(given.x, weights[first.x + k]), dot4I8Packed(given.y, weights[first.y + k]),
      dot4I8Packed(given.z, weights[first.z + k]), dot4I8Packed(given.w, weights[first.w + k]));
  }
  partials[index] = sums;
  workgroupBarrier();
  if (lane != 0u || i * 4u >= params.n) {
    return;
  }
  for (var other = 1u; other < lanes; other++) {
    sums += partials[index + other];
  }
  let of_zero = vec4<i32>(
    weight_sums[channel.x], weight_sums[channel.y], weight_sums[channel.z], weight_sums[channel.w]);
  let scale = params.x_scale * vec4<f32>(scales[channel.x], scales[channel.y], scales[channel.z], scales[channel.w]);
  {% if bias %}
  let added = vec4<f32>(bias[channel.x], bias[channel.y], bias[channel.z], bias[channel.w]);
  let y = rounded_product(vec4<f32>(sums - params.x_zero * of_zero), scale) + added;
  {% else %}
  let y = rounded_product(vec4<f32>(sums - params.x_zero * of_zero), scale);
  {% endif %}
  out[i] = pack4xI8(requantized(y, params.out_factor, params.out_zero));
}
