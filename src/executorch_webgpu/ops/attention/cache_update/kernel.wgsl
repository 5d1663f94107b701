{#
Writes the new rows of KV caches from row input_pos on: as they are, rounded to float16, or quantized to int8.

A step's rows are contiguous in source and cache. With float caches an invocation copies WIDTH elements for each cache,
with int8 caches a workgroup makes a row and head.

Inputs:
  count = 2 | 1: caches that are written
  width = 4 | 1: elements of an invocation; 1 only into float32
  cache = "float32" | "float16" | "int8": what an element of the caches is
  paged = False | True: every row has a place of its own, in pages
#}
{% if width == 4 %}
{% include "wgsl/kv_cache.wgsl" %}
alias Elements = vec4<f32>;
{% else %}
alias Elements = f32;
alias CacheFour = f32;

fn stored(x: f32) -> f32 {
  return x;
}
{% endif %}
{% if cache == "int8" %}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/workgroup_reduce.wgsl" %}
{% else %}
{% include "wgsl/linear_index.wgsl" %}
override wg_size: u32 = 64;
{% endif %}
{% if paged %}
{% include "wgsl/pages.wgsl" %}
{% endif %}

{% for i in range(count) %}
@group(0) @binding({{ 3 * i }}) var<storage, read> rows{{ i }}: array<Elements>;               // [S, H, D]
@group(0) @binding({{ 3 * i + 1 }}) var<storage, read_write> cache{{ i }}: array<CacheFour>;   // [Cmax, H, D]
{% if cache == "int8" %}
@group(0) @binding({{ 3 * i + 2 }}) var<storage, read_write> scales{{ i }}: array<f32>;        // [Cmax, H]
{% endif %}
{% endfor %}

struct Params {
  n: u32,           // what the invocations or workgroups make, in all
  row_length: u32,  // of that, in a row of the caches
  vectors: u32,     // D / 4
{% if paged %}
  table_width: u32,  // pages that a sequence may have
  page_shift: u32,
{% endif %}
}
@group(0) @binding(6) var<uniform> params: Params;
{% if paged %}
@group(0) @binding(7) var<storage, read> places: array<vec2<i32>>;   // [S]: position, sequence
{% else %}
@group(0) @binding(7) var<uniform> input_pos: i32;
{% endif %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(global_invocation_id) gid: vec3<u32>,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  {% if cache == "int8" %}
  let i = group.x + group.y * groups.x;
  {% else %}
  let i = linear_index(gid, groups, wg_size);
  {% endif %}
  if (i >= params.n) {
    return;
  }
  {% if paged %}
  let place = places[i / params.row_length];
  let row = pool_row(u32(place.y) * params.table_width, u32(place.x), params.page_shift);
  let to = row * params.row_length + i % params.row_length;
  {% else %}
  let to = u32(input_pos) * params.row_length + i;
  {% endif %}
  {% for c in range(count) %}
  {% if cache == "int8" %}
  var largest{{ c }} = 0.0;
  for (var v = lane; v < params.vectors; v += wg_size) {
    largest{{ c }} = max(largest{{ c }}, largest_of(rows{{ c }}[i * params.vectors + v]));
  }
  let scale{{ c }} = int8_scale(workgroup_max(largest{{ c }}, lane));
  for (var v = lane; v < params.vectors; v += wg_size) {
    cache{{ c }}[to * params.vectors + v] = stored(rows{{ c }}[i * params.vectors + v] / int8_divisor(scale{{ c }}));
  }
  if (lane == 0u) {
    scales{{ c }}[to] = scale{{ c }};
  }
  {% else %}
  cache{{ c }}[to] = stored(rows{{ c }}[i]);
  {% endif %}
  {% endfor %}
}
