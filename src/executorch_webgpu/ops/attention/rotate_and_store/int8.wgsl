// Rotates the queries into ``rotated_q``, and the keys{{ " and, as they are, the values" if values }} into int8 caches: one workgroup a row.
{% include "attention/rotate_and_store/rows.wgsl" %}
{% set caches = ("k", "v") if values else ("k",) %}
{% for x in caches %}
@group(0) @binding({{ 9 + 2 * loop.index0 }}) var<storage, read_write> {{ x }}_cache: array<u32>;   // [Cmax, Hkv, D], four codes a word
@group(0) @binding({{ 10 + 2 * loop.index0 }}) var<storage, read_write> {{ x }}_scales: array<f32>;  // [Cmax, Hkv]
{% endfor %}

{% include "wgsl/workgroup_reduce.wgsl" %}
{% include "wgsl/int8_codes.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let q_rows = params.tokens * params.q_heads;
  if (row < q_rows) {
    for (var i = lane; i < params.vectors; i += wg_size) {
      rotated_q[row * params.vectors + i] = elements(row, i);
    }
    return;
  }
  var largest = 0.0;
  for (var i = lane; i < params.vectors; i += wg_size) {
    let x = abs(elements(row, i));
    largest = max(largest, max(max(x.x, x.y), max(x.z, x.w)));
  }
  let scale = int8_scale(workgroup_max(largest, lane));
  let divisor = int8_divisor(scale);
  let kv_rows = params.tokens * params.kv_heads;
  let start = u32(input_pos) * params.kv_heads;
{% for x in caches %}
  {{ "if (row < q_rows + kv_rows) " if values and x == "k" else "else " if values }}{
    let target_row = start + row - q_rows{{ " - kv_rows" if x == "v" }};
    for (var i = lane; i < params.vectors; i += wg_size) {
      {{ x }}_cache[target_row * params.vectors + i] = int8_codes(elements(row, i) / divisor);
    }
    if (lane == 0u) {
      {{ x }}_scales[target_row] = scale;
    }
  }
{% endfor %}
}
