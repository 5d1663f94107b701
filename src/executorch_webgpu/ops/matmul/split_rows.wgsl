{#
Rows of x as float16 for the tensor cores of gemm_matrix, after RMSNorm if there is one. One workgroup takes a row.

It multiplies the row by a power of two that brings its largest element near 2^14, and writes each number rounded, or as the
sum of two float16 numbers, the upper 11 bits and the rest.

Inputs:
  depth = 16 | 32: of a step of gemm_matrix along K
  vec4_x = True | False: K is a multiple of 4
  guarded = False | True: the last step may pass the end of a row
  norm = False | True: RMSNorm of x comes first
  out_parts = 2 | 1: float16 numbers for each of x
  out_pairs = 0 | 4 | 8: eights along K are as they come, or in the order of the pairs of codes of so many bits
#}
// Bindings 0 and 6: x and the weights of the norm.
{% include "matmul/input.wgsl" %}
// Binding 3: [steps, m, parts, depth] float16, zero past the end of the row; after that, in the first word of a vec4 for each
// row, the inverse of its power of two.
{% include "wgsl/split_eights.wgsl" %}

struct Params {
  m: u32,
  k: u32,
  steps: u32,
{% if norm %}
  eps: f32,
{% endif %}
}
@group(0) @binding(1) var<uniform> params: Params;

const STEP_WORDS = {{ depth // 8 }}u;  // vec4s of eight float16 numbers
const PARTS = {{ out_parts }}u;

{% include "wgsl/workgroup_reduce.wgsl" %}

// Four of the row, normalized by `factor`.
fn normalized(row: u32, k: u32, factor: f32) -> vec4<f32> {
  {% if norm %}
  return load_x(row, k, params.k) * factor * load_norm_weight(k, params.k);
  {% else %}
  return load_x(row, k, params.k);
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.m) {
    return;
  }

  // ---- the largest element, and the norm's factor, which multiplies it, too ----
  var largest = 0.0;
  var squares = 0.0;
  for (var k = lane * 4u; k < params.k; k += wg_size * 4u) {
    {% if norm %}
    let before = load_x(row, k, params.k);
    squares += dot(before, before);
    let value = abs(before * load_norm_weight(k, params.k));
    {% else %}
    let value = abs(load_x(row, k, params.k));
    {% endif %}
    let finite = select(vec4<f32>(), value, are_finite(value));
    largest = max(largest, max(max(finite.x, finite.y), max(finite.z, finite.w)));
  }
  largest = workgroup_max(largest, lane);
  var factor = 1.0;
  {% if norm %}
  factor = 1.0 / sqrt(workgroup_sum(squares, lane) / f32(params.k) + params.eps);
  largest *= factor;
  {% endif %}

  // ---- the power of two ----
  // Of the largest element only the exponent matters; of both powers of two, neither may be subnormal.
  let exponent = max(bitcast<u32>(largest) >> 23u, 15u);
  let power = bitcast<f32>((268u - exponent) << 23u);  // 2^14 / 2^(exponent - 127)
  if (lane == 0u) {
    let inverse = (exponent - 14u) << 23u;
    split_out[params.steps * params.m * (PARTS * STEP_WORDS) + row] = vec4<u32>(inverse, 0u, 0u, 0u);
  }

  // ---- the numbers ----
  for (var word = lane; word < params.steps * STEP_WORDS; word += wg_size) {
    let low = normalized(row, word * 8u, factor) * power;
    let high = normalized(row, word * 8u + 4u, factor) * power;
    store_eight(word, row, params.m, STEP_WORDS, low, high);
  }
}
