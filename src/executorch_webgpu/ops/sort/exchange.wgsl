{#
Three steps of a bitonic network at once, over pairs that are far apart: an invocation has eight of them.

Inputs:
  mirrored = False | True: whether the first step is that with which a level begins
#}
@group(0) @binding(0) var<storage, read_write> pairs: array<vec2<u32>>;  // [rows, length]

struct Params {
  rows: u32,
  length: u32,
  groups: u32,  // of eight pairs, of a row
  stride: u32,  // of the last step
}
@group(0) @binding(1) var<uniform> params: Params;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}

struct Two {
  a: vec2<u32>,
  b: vec2<u32>,
}

fn ordered(a: vec2<u32>, b: vec2<u32>) -> Two {
  if (b.x < a.x || (b.x == a.x && b.y < a.y)) {
    return Two(b, a);
  }
  return Two(a, b);
}

// What lies past the end of a row is above all pairs, and stays there.
fn loaded(row: u32, i: u32) -> vec2<u32> {
  if (i >= params.length) {
    return vec2<u32>(0xffffffffu);
  }
  return pairs[row * params.length + i];
}

fn store(row: u32, i: u32, pair: vec2<u32>) {
  if (i < params.length) {
    pairs[row * params.length + i] = pair;
  }
}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let id = linear_index(gid, groups, wg_size);
  let row = id / params.groups;
  if (row >= params.rows) {
    return;
  }
  let stride = params.stride;
  let group = id % params.groups;
  let first = group / stride * stride * 8u + group % stride;
  {% if mirrored %}
  let last = group / stride * stride * 8u + stride * 8u - 1u - group % stride;
  {% endif %}
  {% for i in range(8) %}
  {% if mirrored and i >= 4 %}
  let at{{ i }} = last - {{ 7 - i }}u * stride;
  {% else %}
  let at{{ i }} = first + {{ i }}u * stride;
  {% endif %}
  var v{{ i }} = loaded(row, at{{ i }});
  {% endfor %}
  {% set apart = [(0, 4), (1, 5), (2, 6), (3, 7)] %}
  {% set steps = [[(0, 7), (1, 6), (2, 5), (3, 4)] if mirrored else apart, [(0, 2), (1, 3), (4, 6), (5, 7)], [(0, 1), (2, 3), (4, 5), (6, 7)]] %}
  {% for step in steps %}
  {% set number = loop.index0 %}
  {% for a, b in step %}
  let two{{ number }}_{{ a }} = ordered(v{{ a }}, v{{ b }});
  v{{ a }} = two{{ number }}_{{ a }}.a;
  v{{ b }} = two{{ number }}_{{ a }}.b;
  {% endfor %}
  {% endfor %}
  {% for i in range(8) %}
  store(row, at{{ i }}, v{{ i }});
  {% endfor %}
}
