// Rows of x as float16 for the tensor cores: a workgroup multiplies a row by a power of two that brings its largest
// element near 2^14, and writes it {{ "as the sum of two float16 numbers each, the upper 11 bits and the rest" if parts == 2
else "rounded" }}.{{ " RMSNorm comes first." if norm }}
//
// split: [steps, m, {{ parts }} part(s), {{ depth }}] float16, the depth of a step of gemm_matrix.wgsl, zero past the end of the
// row; behind that, in the first word of a vec4 for each row, the inverse of its power of two.
{% set step_words = depth // 8 %}
@group(0) @binding(0) var<storage, read> x: array<{{ "vec4<f32>" if quads else "f32" }}>;  // [m, k]
@group(0) @binding(1) var<storage, read_write> split: array<vec4<u32>>;
{% if norm %}
@group(0) @binding(2) var<storage, read> norm_weight: array<{{ "vec4<f32>" if quads else "f32" }}>;  // [k]
{% endif %}

struct Params {
  m: u32,
  k: u32,
  steps: u32,
{% if norm %}
  eps: f32,
{% endif %}
}
@group(0) @binding(3) var<uniform> params: Params;

{% include "wgsl/workgroup_reduce.wgsl" %}
{% include "linear_quantized/load_x.wgsl" %}
{% if norm %}
{% include "matmul/load_norm_weight.wgsl" %}
{% endif %}

fn halves(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(
    pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw)
  );
}

fn is_finite(x: vec4<f32>) -> vec4<bool> {
  return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
}

// The upper 11 bits of each number. (Converting to float16 and back is undone by a compiler.)
fn upper(x: vec4<f32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xffffe000u));
}

fn rest(x: vec4<f32>) -> vec4<f32> {
  return select(vec4<f32>(), x - upper(x), is_finite(x));
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
  var factor = 1.0;
  {% if norm %}
  var squares = 0.0;
  for (var k = lane * 4u; k < params.k; k += wg_size * 4u) {
    let value = load_x(row, k);
    squares += dot(value, value);
  }
  factor = 1.0 / sqrt(workgroup_sum(squares, lane) / f32(params.k) + params.eps);
  {% endif %}
  var largest = 0.0;
  for (var k = lane * 4u; k < params.k; k += wg_size * 4u) {
    let value = abs(load_x(row, k) * factor{{ " * load_norm_weight(k)" if norm }});
    let finite = select(vec4<f32>(), value, is_finite(value));
    largest = max(largest, max(max(finite.x, finite.y), max(finite.z, finite.w)));
  }
  // Of the largest element only the exponent matters; of both powers of two, neither may be subnormal.
  let exponent = max(bitcast<u32>(workgroup_max(largest, lane)) >> 23u, 15u);
  let power = bitcast<f32>((268u - exponent) << 23u);  // 2^14 / 2^(exponent - 127)
  if (lane == 0u) {
    let inverse = (exponent - 14u) << 23u;
    split[params.steps * params.m * {{ parts * step_words }}u + row] = vec4<u32>(inverse, 0u, 0u, 0u);
  }
  for (var word = lane; word < params.steps * {{ step_words }}u; word += wg_size) {
    let k = word * 8u;
    let low = load_x(row, k) * factor{{ " * load_norm_weight(k)" if norm }} * power;
    let high = load_x(row, k + 4u) * factor{{ " * load_norm_weight(k + 4u)" if norm }} * power;
    let at = (word / {{ step_words }}u * params.m + row) * {{ parts * step_words }}u + word % {{ step_words }}u;
    {% if parts == 2 %}
    split[at] = halves(upper(low), upper(high));
    split[at + {{ step_words }}u] = halves(rest(low), rest(high));
    {% else %}
    split[at] = halves(low, high);
    {% endif %}
  }
}
