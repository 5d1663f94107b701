// Where a packed row lies in q and out, and four consecutive elements of a key or value.
{% set width = 4 %}
{% include "sdpa/cache_load.wgsl" %}

fn row_start(row: u32, kv_head: u32) -> u32 {
  let head = kv_head * params.group_size + row % params.group_size;
  return row / params.group_size * params.token_stride + head * params.head_stride;
}

{% for name in ("k", "v") %}
fn load_{{ name }}(column: u32, kv_head: u32, d: u32) -> vec4<f32> {
  let at = column * params.column_stride + kv_head * params.kv_head_stride + d;
  {% if cache == "int8" %}
  return cache_quad0({{ name }}_cache[at]) * {{ name }}_scales[column * params.kv_heads + kv_head];
  {% else %}
  return cache_quad0({{ name }}_cache[at]);
  {% endif %}
}

{% endfor %}
