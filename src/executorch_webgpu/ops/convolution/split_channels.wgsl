{#
Images as float16 for the tensor cores of the matrix route: the channels of each place side by side, a step at a time.

It multiplies every image by a power of two that brings its largest element near 2^14, and writes each number rounded, or as
the sum of two float16 numbers, the upper 11 bits and the rest. An invocation takes the channels of a step at one place.

Inputs:
  parts = 2 | 1: float16 numbers for each of x
  depth = 16 | 32: channels of a step
#}
@group(0) @binding(0) var<storage, read> x: array<f32>;  // [images, channels, plane]
@group(0) @binding(1) var<storage, read> largest: array<f32>;  // [images, chunks]
// [steps, images, plane, parts, depth] float16, zero past the last channel
@group(0) @binding(2) var<storage, read_write> split: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> inverses: array<f32>;  // [images]: of the powers of two

struct Params {
  images: u32,
  channels: u32,
  plane: u32,   // places of an image
  chunks: u32,  // at most wg_size
  steps: u32,
  blocks: u32,  // workgroups of a step of an image
}
@group(0) @binding(4) var<uniform> params: Params;

const DEPTH = {{ depth }}u;
const PARTS = {{ parts }}u;
const WORDS = {{ depth // 8 }}u;  // vec4s of eight float16 numbers

{% include "wgsl/workgroup_reduce.wgsl" %}
{% include "wgsl/halves.wgsl" %}

fn load_four(start: u32, channel: u32) -> vec4<f32> {
  var values = vec4<f32>();
  for (var i = 0u; i < 4u; i++) {
    if (channel + i < params.channels) {
      values[i] = x[start + (channel + i) * params.plane];
    }
  }
  return values;
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let item = group.x + group.y * groups.x;
  if (item >= params.images * params.steps * params.blocks) {
    return;
  }
  let place = item % params.blocks * wg_size + lane;
  let step = item / params.blocks % params.steps;
  let image = item / params.blocks / params.steps;

  // ---- the power of two: only the exponent matters; neither power may be subnormal ----
  let chunk = select(0.0, largest[image * params.chunks + min(lane, params.chunks - 1u)], lane < params.chunks);
  let exponent = max(bitcast<u32>(workgroup_max(chunk, lane)) >> 23u, 15u);
  let power = bitcast<f32>((268u - exponent) << 23u);  // 2^14 / 2^(exponent - 127)
  if (lane == 0u && step == 0u && item % params.blocks == 0u) {
    inverses[image] = bitcast<f32>((exponent - 14u) << 23u);
  }
  if (place >= params.plane) {
    return;
  }

  let start = image * params.channels * params.plane + place;
  let to = ((step * params.images + image) * params.plane + place) * (PARTS * WORDS);
  {% for word in range(depth // 8) %}
  {
    let low = load_four(start, step * DEPTH + {{ 8 * word }}u) * power;
    let high = load_four(start, step * DEPTH + {{ 8 * word + 4 }}u) * power;
    {% if parts == 2 %}
    split[to + {{ word }}u] = halves(upper(low), upper(high));
    split[to + WORDS + {{ word }}u] = halves(rest(low), rest(high));
    {% else %}
    split[to + {{ word }}u] = halves(low, high);
    {% endif %}
  }
  {% endfor %}
}
