// Quantizes the new rows of {{ count }} cache(s) and writes them from row input_pos on: one workgroup a row and head.
{% for i in range(count) %}
@group(0) @binding({{ 3 * i }}) var<storage, read> rows{{ i }}: array<vec4<f32>>;              // [S, H, D]
@group(0) @binding({{ 3 * i + 1 }}) var<storage, read_write> cache{{ i }}: array<u32>;   // [Cmax, H, D], four codes a word
@group(0) @binding({{ 3 * i + 2 }}) var<storage, read_write> scales{{ i }}: array<f32>;  // [Cmax, H]
{% endfor %}

struct Params {
  n: u32,        // S * H
  heads: u32,    // H
  vectors: u32,  // D / 4
}
@group(0) @binding({{ 3 * count }}) var<uniform> params: Params;
@group(0) @binding({{ 3 * count + 1 }}) var<uniform> input_pos: i32;

{% include "wgsl/workgroup_reduce.wgsl" %}
{% include "wgsl/int8_codes.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let source = group.x + group.y * groups.x;
  if (source >= params.n) {
    return;
  }
  let target_row = u32(input_pos) * params.heads + source;
  {% for i in range(count) %}
  var largest{{ i }} = 0.0;
  for (var v = lane; v < params.vectors; v += wg_size) {
    let x = abs(rows{{ i }}[source * params.vectors + v]);
    largest{{ i }} = max(largest{{ i }}, max(max(x.x, x.y), max(x.z, x.w)));
  }
  let scale{{ i }} = int8_scale(workgroup_max(largest{{ i }}, lane));
  for (var v = lane; v < params.vectors; v += wg_size) {
    let x = rows{{ i }}[source * params.vectors + v];
    cache{{ i }}[target_row * params.vectors + v] = int8_codes(x / int8_divisor(scale{{ i }}));
  }
  if (lane == 0u) {
    scales{{ i }}[target_row] = scale{{ i }};
  }
  {% endfor %}
}
