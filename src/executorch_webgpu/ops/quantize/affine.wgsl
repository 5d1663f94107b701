{#
Affine quantization of x to codes, or back, four elements per invocation.

Inputs:
  formula = "quantize" | "quantize_shifted" | "dequantize" | "dequantize_integers" | "fake_quantize": round(x / scale) + zero,
    round(x / scale + zero), (x - zero) * scale, the same with an exact difference of integers, and the first there and back
  qparams = "numbers" | "single" | "blocks": numbers of the call, where that of a scale is its inverse if x is quantized;
    tensors of one element; or of one for each block
  shared = False | True: four neighbours, from a multiple of four on, lie in one block
  x = "float32" | "float16" | "bfloat16" | "int8" | "uint8" | "int16" | "int32": dtype
  out = "int8" | "uint8" | "int16" | "int32" | "float32" | "float16" | "bfloat16": dtype
  scale = "float32" | "float16" | "bfloat16": dtype, of tensors
  zero = None | "int32" | "int16" | "int8" | "uint8" | "float32": dtype, of tensors; None: there are none, and it is 0
#}
{% set number = "f32" if zero == "float32" else "i32" %}
{% set quantizes = formula in ("quantize", "quantize_shifted", "fake_quantize") %}
@group(0) @binding(0) var<storage, read> input: array<{{ x }}_quad>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ out }}_quad>;
@group(0) @binding(2) var<uniform> params: Params;
{% if qparams != "numbers" %}
@group(0) @binding(3) var<storage, read> scales: array<{{ scale }}_word>;
{% if zero is not none %}
@group(0) @binding(4) var<storage, read> zeros: array<{{ zero }}_word>;
{% endif %}
{% endif %}

struct Params {
  n: u32,
{% if quantizes %}
  low: f32,
  high: f32,
{% endif %}
{% if qparams == "numbers" %}
  factor: f32,
{% if formula == "fake_quantize" %}
  scale: f32,
{% endif %}
  zero: {{ number }},
{% elif qparams == "blocks" %}
  rank: u32,
  dims: array<vec4<u32>, 2>,    // of x, innermost first
  blocks: array<vec4<u32>, 2>,  // elements of a block along each of them
  steps: array<vec4<u32>, 2>,   // from the parameters of a block to those of the next one
{% endif %}
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/exact_quotient.wgsl" %}
{% include "quantize/rounding.wgsl" %}
{% if qparams == "blocks" %}

// The block of element i; past the end, that of the last one.
fn block_of(i: u32) -> u32 {
  var rest = min(i, params.n - 1u);
  var block = 0u;
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    block += (rest - outer * size) / params.blocks[d / 4u][d % 4u] * params.steps[d / 4u][d % 4u];
    rest = outer;
  }
  return block;
}
{% endif %}
{% if qparams != "numbers" %}

// What an element is multiplied with.
fn factor_of(block: u32) -> f32 {
  let scale = f32(element_{{ scale }}(scales[block / {{ scale }}_per_word], block));
  {% if quantizes %}
  return exact_quotient(1.0, scale);
  {% else %}
  return scale;
  {% endif %}
}
{% if formula == "fake_quantize" %}

fn scale_of(block: u32) -> f32 {
  return f32(element_{{ scale }}(scales[block / {{ scale }}_per_word], block));
}
{% endif %}

fn zero_of(block: u32) -> {{ number }} {
  {% if zero is none %}
  return 0;
  {% else %}
  return {{ number }}(element_{{ zero }}(zeros[block / {{ zero }}_per_word], block));
  {% endif %}
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * 4u >= params.n) {
    return;
  }
  {% if qparams == "numbers" %}
  let factor = vec4<f32>(params.factor);
  {% if formula == "fake_quantize" %}
  let scale = params.scale;
  {% endif %}
  let zero = vec4<{{ number }}>(params.zero);
  {% elif qparams == "single" %}
  let factor = vec4<f32>(factor_of(0u));
  {% if formula == "fake_quantize" %}
  let scale = scale_of(0u);
  {% endif %}
  let zero = vec4<{{ number }}>(zero_of(0u));
  {% elif shared %}
  let block = block_of(i * 4u);
  let factor = vec4<f32>(factor_of(block));
  {% if formula == "fake_quantize" %}
  let scale = scale_of(block);
  {% endif %}
  let zero = vec4<{{ number }}>(zero_of(block));
  {% else %}
  let block = vec4<u32>(block_of(i * 4u), block_of(i * 4u + 1u), block_of(i * 4u + 2u), block_of(i * 4u + 3u));
  let factor = vec4<f32>(factor_of(block.x), factor_of(block.y), factor_of(block.z), factor_of(block.w));
  {% if formula == "fake_quantize" %}
  let scale = vec4<f32>(scale_of(block.x), scale_of(block.y), scale_of(block.z), scale_of(block.w));
  {% endif %}
  let zero = vec4<{{ number }}>(zero_of(block.x), zero_of(block.y), zero_of(block.z), zero_of(block.w));
  {% endif %}
  let x = unpack_{{ x }}(input[i]);
  {% if formula == "quantize" %}
  let result = codes(round(vec4<f32>(x) * factor) + vec4<f32>(zero), params.low, params.high);
  {% elif formula == "quantize_shifted" %}
  let result = codes(round(rounded_product(vec4<f32>(x), factor) + vec4<f32>(zero)), params.low, params.high);
  {% elif formula == "fake_quantize" %}
  let whole = codes(round(vec4<f32>(x) * factor) + vec4<f32>(zero), params.low, params.high);
  let result = (vec4<f32>(whole) - vec4<f32>(zero)) * scale;
  {% elif formula == "dequantize" %}
  let result = (vec4<f32>(x) - vec4<f32>(zero)) * factor;
  {% else %}
  let result = vec4<f32>(vec4<{{ number }}>(x) - zero) * factor;
  {% endif %}
  out[i] = pack_{{ out }}({{ out }}_numbers(result));
}
