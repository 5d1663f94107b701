{#
Sums of products of 8-bit codes, as codes. A workgroup of 16 x 16 invocations computes a tile of 64 places by 64 channels of a
group, an invocation four by four of them, a step of 32 products at a time, four in one instruction.

Inputs:
  linear = False | True: a place is a row of x [rows, group_in] and of out, whose channels are neighbours
  transposed = False | True: the convolution is
  words = False | True: four neighbours of out, from a multiple of four on, are those of one invocation
  relu = False | True: negative numbers become 0
  bias = False | True: whether it is added
#}
@group(0) @binding(0) var<storage, read> x: array<u32>;  // int8 [N, channels, in_size]
@group(0) @binding(1) var<storage, read> weights: array<u32>;  // int8 [channels, row_words * 4]
@group(0) @binding(2) var<storage, read> weight_sums: array<i32>;  // [channels]
@group(0) @binding(3) var<storage, read> scales: array<f32>;
{% if bias %}
@group(0) @binding(4) var<storage, read> bias: array<f32>;
{% endif %}
{% if words %}
@group(0) @binding(5) var<storage, read_write> out: array<u32>;  // int8 [N, groups * group_out, out_size]
{% else %}
@group(0) @binding(5) var<storage, read_write> out: array<atomic<u32>>;
{% endif %}

struct Params {
  rows: u32,  // places of all images
  column_tiles: u32,
  tap_words: u32,  // of a channel's weights, four to a word
  row_words: u32,
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
}
@group(0) @binding(6) var<uniform> params: Params;

const TILE = 64u;
const DEPTH = 8u;  // words of a step

var<workgroup> x_tile: array<u32, TILE * DEPTH>;  // [words, places]
var<workgroup> w_tile: array<u32, TILE * DEPTH>;  // [words, channels]

{% include "q8ta/requantize.wgsl" %}
{% include "q8ta/place.wgsl" %}

fn byte_of_x(i: u32) -> u32 {
  return extractBits(x[i / 4u], i % 4u * 8u, 8u);
}

// Four codes of x that meet word k of the weights; where x ends, its zero point, or anything where weights are 0.
{% if linear %}
fn x_word(row: u32, k: u32) -> u32 {
  let at = row * params.group_in + k * 4u;
  if (params.group_in % 4u == 0u) {
    return x[at / 4u];
  }
  let last = row * params.group_in + params.group_in - 1u;
  return pack4xU8(vec4<u32>(
    byte_of_x(at), byte_of_x(min(at + 1u, last)), byte_of_x(min(at + 2u, last)), byte_of_x(min(at + 3u, last))));
}
{% else %}
fn x_word(batch: u32, place: u32, group: u32, k: u32) -> u32 {
  let tap = k / params.tap_words;
  let channel = (k - tap * params.tap_words) * 4u;
  let ky = tap / params.kernel.y;
  let row = place / params.out_size.y;
  let found = places_of(
    vec4<u32>(row), vec4<u32>(place - row * params.out_size.y), vec2<u32>(ky, tap - ky * params.kernel.y),
    params.in_size, params.stride, params.padding, params.dilation);
  if (!found.there.x) {
    return (u32(params.x_zero) & 0xffu) * 0x01010101u;
  }
  let plane = params.in_size.x * params.in_size.y;
  let first = (batch * params.groups + group) * params.group_in;
  let last = params.group_in - 1u;
  let at = (first + min(vec4<u32>(channel) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last))) * plane + found.at.x;
  return pack4xU8(vec4<u32>(byte_of_x(at.x), byte_of_x(at.y), byte_of_x(at.z), byte_of_x(at.w)));
}
{% endif %}

fn y_of(sums: vec4<i32>, channel: u32) -> vec4<i32> {
  let scale = params.x_scale * scales[channel % params.scale_count];
  let exact = sums - params.x_zero * weight_sums[channel];
  {% if bias %}
  let y = rounded_product(vec4<f32>(exact), vec4<f32>(scale)) + bias[channel];
  {% else %}
  let y = rounded_product(vec4<f32>(exact), vec4<f32>(scale));
  {% endif %}
  return requantized(y, params.out_factor, params.out_zero);
}
{% if not words %}

// The other bytes of a word may be written by others at the same time.
fn store_byte(at: u32, code: i32) {
  let shift = at % 4u * 8u;
  atomicAnd(&out[at / 4u], ~(0xffu << shift));
  atomicOr(&out[at / 4u], (u32(code) & 0xffu) << shift);
}
{% endif %}

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let columns_of_all = params.column_tiles * params.groups;
  let tile_row = tile / columns_of_all * TILE;
  let which = tile % columns_of_all / params.column_tiles;  // group of channels
  let tile_column = tile % params.column_tiles * TILE;
  if (tile_row >= params.rows) {
    return;
  }
  let first_channel = which * params.group_out;
  // Of each place by channel.
  {% for r in range(4) %}
  var sums{{ r }} = vec4<i32>();
  {% endfor %}


  // ---- what this invocation stages: of x two words of a place, or of neighbours along its row; of weights likewise ----
  {% if linear %}
  let x_place = lane / DEPTH;
  {% else %}
  let x_place = lane % TILE;
  let x_row = min(tile_row + x_place, params.rows - 1u);
  let plane = params.out_size.x * params.out_size.y;
  let batch = x_row / plane;
  let place = x_row - batch * plane;
  {% endif %}
  for (var first = 0u; first < params.row_words; first += DEPTH) {
    {% for half in range(2) %}
    {
      {% if linear %}
      let k = lane % DEPTH;
      let row = x_place + {{ 32 * half }}u;
      var word = 0u;
      if (first + k < params.row_words) {
        word = x_word(min(tile_row + row, params.rows - 1u), first + k);
      }
      x_tile[k * TILE + row] = word;
      {% else %}
      let k = lane / TILE + {{ 4 * half }}u;
      var word = 0u;
      if (first + k < params.row_words) {
        word = x_word(batch, place, which, first + k);
      }
      x_tile[k * TILE + x_place] = word;
      {% endif %}
    }
    {
      let k = lane % DEPTH;
      let column = lane / DEPTH + {{ 32 * half }}u;
      var word = 0u;
      if (first + k < params.row_words && tile_column + column < params.group_out) {
        word = weights[(first_channel + tile_column + column) * params.row_words + first + k];
      }
      w_tile[k * TILE + column] = word;
    }
    {% endfor %}
    workgroupBarrier();
    for (var k = 0u; k < DEPTH; k++) {
      let x_at = k * TILE + local.y * 4u;
      let w_at = k * TILE + local.x * 4u;
      {% for c in range(4) %}
      let w{{ c }} = w_tile[w_at + {{ c }}u];
      {% endfor %}
      {% for r in range(4) %}
      let x{{ r }} = x_tile[x_at + {{ r }}u];
      sums{{ r }} += vec4<i32>(
        dot4I8Packed(x{{ r }}, w0), dot4I8Packed(x{{ r }}, w1), dot4I8Packed(x{{ r }}, w2), dot4I8Packed(x{{ r }}, w3));
      {% endfor %}
    }
    workgroupBarrier();
  }

  // ---- the codes ----
  let row = tile_row + local.y * 4u;
  let column = tile_column + local.x * 4u;
  let by_channel = transpose_sums(sums0, sums1, sums2, sums3);
  var codes_by_channel: array<vec4<i32>, 4>;  // of each the four places
  for (var c = 0u; c < 4u; c++) {
    codes_by_channel[c] = y_of(by_channel[c], first_channel + min(column + c, params.group_out - 1u));
  }
  let channels = params.groups * params.group_out;
  {% if linear %}
  for (var r = 0u; r < 4u; r++) {
    if (row + r < params.rows && column < params.group_out) {
      let at = (row + r) * channels + column;
      {% if words %}
      out[at / 4u] = pack4xI8(vec4<i32>(
        codes_by_channel[0][r], codes_by_channel[1][r], codes_by_channel[2][r], codes_by_channel[3][r]));
      {% else %}
      for (var c = 0u; c < min(4u, params.group_out - column); c++) {
        store_byte(at + c, codes_by_channel[c][r]);
      }
      {% endif %}
    }
  }
  {% else %}
  if (row >= params.rows) {
    return;
  }
  for (var c = 0u; c < 4u && column + c < params.group_out; c++) {
    {% if words %}
    let image = row / plane;
    out[((image * channels + first_channel + column + c) * plane + row - image * plane) / 4u] =
      pack4xI8(codes_by_channel[c]);
    {% else %}
    for (var r = 0u; r < min(4u, params.rows - row); r++) {
      let image = (row + r) / plane;
      let at = (image * channels + first_channel + column + c) * plane + row + r - image * plane;
      store_byte(at, codes_by_channel[c][r]);
    }
    {% endif %}
  }
  {% endif %}
}

fn transpose_sums(a: vec4<i32>, b: vec4<i32>, c: vec4<i32>, d: vec4<i32>) -> array<vec4<i32>, 4> {
  return array<vec4<i32>, 4>(
    vec4<i32>(a.x, b.x, c.x, d.x), vec4<i32>(a.y, b.y, c.y, d.y),
    vec4<i32>(a.z, b.z, c.z, d.z), vec4<i32>(a.w, b.w, c.w, d.w),
  );
}
