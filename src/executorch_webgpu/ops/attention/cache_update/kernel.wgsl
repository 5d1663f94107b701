// Copies the new rows of {{ count }} cache(s) to row input_pos.
// A step's rows are contiguous in source and cache; an invocation copies {{ width }} of their elements.
{% set T = "vec4<f32>" if width == 4 else "f32" %}
{% set stored = "vec2<u32>" if cache == "float16" else T %}
{% for i in range(count) %}
@group(0) @binding({{ 2 * i }}) var<storage, read> rows{{ i }}: array<{{ T }}>;
@group(0) @binding({{ 2 * i + 1 }}) var<storage, read_write> cache{{ i }}: array<{{ stored }}>;
{% endfor %}

struct Params {
  n: u32,           // elements written to each cache / {{ width }}
  row_length: u32,  // elements of one cache row, Hkv * D / {{ width }}
}
@group(0) @binding({{ 2 * count }}) var<uniform> params: Params;
@group(0) @binding({{ 2 * count + 1 }}) var<uniform> input_pos: i32;

override wg_size: u32 = 64;

{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/cache_store.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let start = u32(input_pos) * params.row_length;
  {% for i in range(count) %}
  cache{{ i }}[start + i] = store(rows{{ i }}[i]);
  {% endfor %}
}
