{#
A step of AdamW on every parameter: decoupled weight decay, then the update by bias-corrected moments. In place.

Inputs:
  copies = False | True: the new values go to tensors of their own, too
#}
@group(0) @binding(0) var<storage, read_write> param: array<f32>;
@group(0) @binding(1) var<storage, read_write> m: array<f32>;  // the first moment of the gradients
@group(0) @binding(2) var<storage, read_write> v: array<f32>;  // and the second
@group(0) @binding(3) var<storage, read> grad: array<f32>;
{% if copies %}
@group(0) @binding(4) var<storage, read_write> out_param: array<f32>;
@group(0) @binding(5) var<storage, read_write> out_m: array<f32>;
@group(0) @binding(6) var<storage, read_write> out_v: array<f32>;
{% endif %}

struct Params {
  n: u32,
  lr: f32,
  beta1: f32,
  beta2: f32,
  rest1: f32,  // 1 - beta1, which float32 would lose digits of
  rest2: f32,
  eps: f32,
  decay: f32,  // 1 - lr * weight_decay
  bias_correction1: f32,
  bias_correction2: f32,
}
@group(0) @binding(7) var<uniform> params: Params;

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let g = grad[i];
  let first = params.beta1 * m[i] + params.rest1 * g;
  let second = params.beta2 * v[i] + params.rest2 * g * g;
  let denominator = sqrt(second / params.bias_correction2) + params.eps;
  let updated = param[i] * params.decay - params.lr * (first / params.bias_correction1) / denominator;
  param[i] = updated;
  m[i] = first;
  v[i] = second;
  {% if copies %}
  out_param[i] = updated;
  out_m[i] = first;
  out_v[i] = second;
  {% endif %}
}
