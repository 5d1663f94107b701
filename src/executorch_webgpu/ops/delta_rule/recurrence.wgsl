{#
The gated delta rule. An invocation has one column of the state of one head, which lies where the result is stored.
#}
@group(0) @binding(0) var<storage, read> q: array<f32>;        // [batch and head, token, key]
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;        // [batch and head, token, value]
@group(0) @binding(3) var<storage, read> decay: array<f32>;    // [batch and head, token, key or 1]
@group(0) @binding(4) var<storage, read> beta: array<f32>;     // [batch and head, token]
@group(0) @binding(5) var<storage, read> initial: array<f32>;  // [batch and head, key, value]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
@group(0) @binding(7) var<storage, read_write> state: array<f32>;

struct Params {
  n: u32,
  group: u32,  // heads of q for one of the state
  tokens: u32,
  keys: u32,
  values: u32,
  channels: u32,  // keys that have a decay of their own, or 1
}
@group(0) @binding(8) var<uniform> params: Params;

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let head = i / params.values;
  let column = i % params.values;
  let first = head * params.keys * params.values + column;
  for (var c = 0u; c < params.keys; c++) {
    state[first + c * params.values] = initial[first + c * params.values];
  }
  for (var t = 0u; t < params.tokens; t++) {
    let token = head * params.tokens + t;
    var predicted = 0.0;
    for (var c = 0u; c < params.keys; c++) {
      let gate = decay[token * params.channels + min(c, params.channels - 1u)];
      let at = first + c * params.values;
      let kept = state[at] * gate;
      state[at] = kept;
      predicted += kept * k[token * params.keys + c];
    }
    let correction = (v[token * params.values + column] - predicted) * beta[token];
    for (var c = 0u; c < params.keys; c++) {
      state[first + c * params.values] += k[token * params.keys + c] * correction;
    }
    for (var g = 0u; g < params.group; g++) {
      let query = (head * params.group + g) * params.tokens + t;
      var total = 0.0;
      for (var c = 0u; c < params.keys; c++) {
        total += state[first + c * params.values] * q[query * params.keys + c];
      }
      out[query * params.values + column] = total;
    }
  }
}
